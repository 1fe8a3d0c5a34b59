//! Helpers the tests share: Go toolchains, target programs, running heaptap.
