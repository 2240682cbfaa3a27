//! libxl's helper that saves a domain, as a process list shows it.

fn main() {
    std::thread::sleep(std::time::Duration::from_secs(60));
}
