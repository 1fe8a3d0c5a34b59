//! The checked-in eBPF object is the one its sources give, as far as hashes tell.

use xtask::ebpf::{Sidecar, object_path, sha256, sources};

#[test]
fn the_object_is_not_older_than_its_sources() {
    let sidecar = Sidecar::read().expect("sidecar");
    let now = sources().expect("sources");
    assert_eq!(sidecar.sources, now, "sources changed; run: cargo xtask build-ebpf");
    let object = std::fs::read(object_path()).expect("object");
    assert_eq!(sidecar.object, sha256(&object), "not the object that was built");
}

#[test]
fn the_object_names_no_path_of_the_machine_it_was_built_on() {
    let object = std::fs::read(object_path()).expect("object");
    let text = String::from_utf8_lossy(&object);
    for part in ["/home/", "/root/", "/tmp/", "/usr/", "/rustc/", ".cargo"] {
        assert!(!text.contains(part), "{part}");
    }
}
