// Single objects of every class the allocator knows.

package main

import "unsafe"

// The types are named by their size in bytes. A scan type begins with a pointer, so that
// it is pointerful but its pointer bitmap is short.
type (
	scanT8  struct{ p *byte }
	scanT16 struct{ p, q *byte }
	scanT24 struct {
		p *byte
		_ [16]byte
	}
	scanT32 struct {
		p *byte
		_ [24]byte
	}
	scanT48 struct {
		p *byte
		_ [40]byte
	}
	scanT64 struct {
		p *byte
		_ [56]byte
	}
	scanT80 struct {
		p *byte
		_ [72]byte
	}
	scanT96 struct {
		p *byte
		_ [88]byte
	}
	scanT160 struct {
		p *byte
		_ [152]byte
	}
	scanT512 struct {
		p *byte
		_ [504]byte
	}
	scanT520 struct {
		p *byte
		_ [512]byte
	}
	scanT1024 struct {
		p *byte
		_ [1016]byte
	}
	scanT5000 struct {
		p *byte
		_ [4992]byte
	}
	scanT32752 struct {
		p *byte
		_ [32744]byte
	}
	scanT32768 struct {
		p *byte
		_ [32760]byte
	}
	scanT40000 struct {
		p *byte
		_ [39992]byte
	}

	noscanT16    [2]uint64
	noscanT24    [3]uint64
	noscanT32    [4]uint64
	noscanT48    [6]uint64
	noscanT64    [8]uint64
	noscanT80    [10]uint64
	noscanT96    [12]uint64
	noscanT1024  [128]uint64
	noscanT32752 [4094]uint64
	noscanT32768 [4096]uint64
	noscanT50000 [6250]uint64

	tinyT12 [3]uint32
	tinyT15 [15]byte
)

//go:noinline
func scan8(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT8)) // site:scan8
	}
}

//go:noinline
func scan16(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT16)) // site:scan16
	}
}

//go:noinline
func scan24(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT24)) // site:scan24
	}
}

//go:noinline
func scan32(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT32)) // site:scan32
	}
}

//go:noinline
func scan48(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT48)) // site:scan48
	}
}

//go:noinline
func scan64(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT64)) // site:scan64
	}
}

//go:noinline
func scan80(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT80)) // site:scan80
	}
}

//go:noinline
func scan96(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT96)) // site:scan96
	}
}

//go:noinline
func scan160(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT160)) // site:scan160
	}
}

//go:noinline
func scan512(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT512)) // site:scan512
	}
}

//go:noinline
func scan520(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT520)) // site:scan520
	}
}

//go:noinline
func scan1024(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT1024)) // site:scan1024
	}
}

//go:noinline
func scan5000(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT5000)) // site:scan5000
	}
}

//go:noinline
func scan32752(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT32752)) // site:scan32752
	}
}

//go:noinline
func scan32768(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT32768)) // site:scan32768
	}
}

//go:noinline
func scan40000(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(scanT40000)) // site:scan40000
	}
}

//go:noinline
func noscan16(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT16)) // site:noscan16
	}
}

//go:noinline
func noscan24(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT24)) // site:noscan24
	}
}

//go:noinline
func noscan32(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT32)) // site:noscan32
	}
}

//go:noinline
func noscan48(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT48)) // site:noscan48
	}
}

//go:noinline
func noscan64(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT64)) // site:noscan64
	}
}

//go:noinline
func noscan80(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT80)) // site:noscan80
	}
}

//go:noinline
func noscan96(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT96)) // site:noscan96
	}
}

//go:noinline
func noscan1024(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT1024)) // site:noscan1024
	}
}

//go:noinline
func noscan32752(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT32752)) // site:noscan32752
	}
}

//go:noinline
func noscan32768(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT32768)) // site:noscan32768
	}
}

//go:noinline
func noscan50000(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(noscanT50000)) // site:noscan50000
	}
}

//go:noinline
func tiny1(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(int8)) // site:tiny1
	}
}

//go:noinline
func tiny2(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(int16)) // site:tiny2
	}
}

//go:noinline
func tiny4(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(int32)) // site:tiny4
	}
}

//go:noinline
func tiny8(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(int64)) // site:tiny8
	}
}

//go:noinline
func tiny12(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(tinyT12)) // site:tiny12
	}
}

//go:noinline
func tiny15(n int) {
	for i := 0; i < n; i++ {
		sink = unsafe.Pointer(new(tinyT15)) // site:tiny15
	}
}
