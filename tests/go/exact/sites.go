// What is allocated where: the table the manifest is made from.

package main

import (
	"runtime"
	"strings"
)

// object is one object per round, made by new, at the comment called as the site.
func object(site, typ string, size uint64) []row {
	return []row{{Type: typ, Kind: "newobject", Marker: site, Objects: 1, Requested: size}}
}

// one is one object per round, of a kind, at the comment called as the site.
func one(site, kind string) []row {
	return []row{{Kind: kind, Marker: site, Objects: 1}}
}

// generic is one object of 24 bytes per type and round, made by a generic function.
func generic(types ...string) []row {
	var rows []row
	for _, typ := range types {
		rows = append(rows, row{Type: typ, Objects: 1, Requested: 24})
	}
	if strings.HasPrefix(runtime.Version(), "go1.19") {
		// It allocates by the shape that the types have in common.
		return []row{{Objects: uint64(len(types)), Requested: 24 * uint64(len(types))}}
	}
	return rows
}

// inlined are the frames of functions inlined, each into the next, at the comments called
// as they are.
func inlined(functions ...string) []frame {
	var frames []frame
	for i, name := range functions {
		frames = append(frames, frame{Function: "main." + name, Marker: name, Inlined: i+1 < len(functions)})
	}
	return frames
}

// The numbers of rounds differ, so that mistaking one site for another shows.
var sites = append([]site{
	{name: "scan8", run: scan8, rounds: 1001, rows: object("scan8", "main.scanT8", 8)},
	{name: "scan16", run: scan16, rounds: 1008, rows: object("scan16", "main.scanT16", 16)},
	{name: "scan24", run: scan24, rounds: 1015, rows: object("scan24", "main.scanT24", 24)},
	{name: "scan32", run: scan32, rounds: 1022, rows: object("scan32", "main.scanT32", 32)},
	{name: "scan48", run: scan48, rounds: 1029, rows: object("scan48", "main.scanT48", 48)},
	{name: "scan64", run: scan64, rounds: 1036, rows: object("scan64", "main.scanT64", 64)},
	{name: "scan80", run: scan80, rounds: 1043, rows: object("scan80", "main.scanT80", 80)},
	{name: "scan96", run: scan96, rounds: 1050, rows: object("scan96", "main.scanT96", 96)},
	{name: "scan160", run: scan160, rounds: 1057, rows: object("scan160", "main.scanT160", 160)},
	{name: "scan512", run: scan512, rounds: 1064, rows: object("scan512", "main.scanT512", 512)},
	{name: "scan520", run: scan520, rounds: 1071, rows: object("scan520", "main.scanT520", 520)},
	{name: "scan1024", run: scan1024, rounds: 1078, rows: object("scan1024", "main.scanT1024", 1024)},
	{name: "scan5000", run: scan5000, rounds: 136, rows: object("scan5000", "main.scanT5000", 5000)},
	{name: "scan32752", run: scan32752, rounds: 143, rows: object("scan32752", "main.scanT32752", 32752)},
	{name: "scan32768", run: scan32768, rounds: 150, rows: object("scan32768", "main.scanT32768", 32768)},
	{name: "scan40000", run: scan40000, rounds: 107, rows: object("scan40000", "main.scanT40000", 40000)},
	{name: "noscan16", run: noscan16, rounds: 1113, rows: object("noscan16", "main.noscanT16", 16)},
	{name: "noscan24", run: noscan24, rounds: 1120, rows: object("noscan24", "main.noscanT24", 24)},
	{name: "noscan32", run: noscan32, rounds: 1127, rows: object("noscan32", "main.noscanT32", 32)},
	{name: "noscan48", run: noscan48, rounds: 1134, rows: object("noscan48", "main.noscanT48", 48)},
	{name: "noscan64", run: noscan64, rounds: 1141, rows: object("noscan64", "main.noscanT64", 64)},
	{name: "noscan80", run: noscan80, rounds: 1148, rows: object("noscan80", "main.noscanT80", 80)},
	{name: "noscan96", run: noscan96, rounds: 1155, rows: object("noscan96", "main.noscanT96", 96)},
	{name: "noscan1024", run: noscan1024, rounds: 1162, rows: object("noscan1024", "main.noscanT1024", 1024)},
	{name: "noscan32752", run: noscan32752, rounds: 120, rows: object("noscan32752", "main.noscanT32752", 32752)},
	{name: "noscan32768", run: noscan32768, rounds: 127, rows: object("noscan32768", "main.noscanT32768", 32768)},
	{name: "noscan50000", run: noscan50000, rounds: 134, rows: object("noscan50000", "main.noscanT50000", 50000)},
	{name: "tiny1", run: tiny1, rounds: 1190, rows: object("tiny1", "int8", 1), sharesBlocks: true},
	{name: "tiny2", run: tiny2, rounds: 1197, rows: object("tiny2", "int16", 2), sharesBlocks: true},
	{name: "tiny4", run: tiny4, rounds: 1204, rows: object("tiny4", "int32", 4), sharesBlocks: true},
	{name: "tiny8", run: tiny8, rounds: 1211, rows: object("tiny8", "int64", 8), sharesBlocks: true},
	{name: "tiny12", run: tiny12, rounds: 1218, rows: object("tiny12", "main.tinyT12", 12), sharesBlocks: true},
	{name: "tiny15", run: tiny15, rounds: 1225, rows: object("tiny15", "main.tinyT15", 15), sharesBlocks: true},

	{name: "makeInts", run: makeInts, rounds: 1201, rows: []row{{Type: "int", Kind: "makeslice", Marker: "makeInts", Objects: 1, Requested: 80}}},
	{name: "makePointers", run: makePointers, rounds: 1213, rows: []row{{Type: "*uint8", Kind: "makeslice", Marker: "makePointers", Objects: 1, Requested: 800}}},
	{name: "makeBytesLarge", run: makeBytesLarge, rounds: 107, rows: []row{{Type: "uint8", Kind: "makeslice", Marker: "makeBytesLarge", Objects: 1, Requested: 60000}}},
	{name: "makeUnits", run: makeUnits, rounds: 1217, rows: []row{{Objects: 0}}},
	{name: "makeAndCopy", run: makeAndCopy, rounds: 1223, rows: one("makeAndCopy", "makeslice")},
	{name: "growPointers", run: growPointers, rounds: 211, rows: []row{{Type: "*uint8", Kind: "growslice", Marker: "growPointers", Objects: 8}}},
	{name: "growLocal", run: growLocal, rounds: 223},
	{name: "concat", run: concat, rounds: 1229, rows: one("concat", "string")},
	{name: "bytesToString", run: bytesToString, rounds: 1231, rows: one("bytesToString", "string")},
	{name: "stringToBytes", run: stringToBytes, rounds: 1237, rows: one("stringToBytes", "bytes")},
	{name: "stringToRunes", run: stringToRunes, rounds: 1249, rows: one("stringToRunes", "bytes")},
	{name: "runesToString", run: runesToString, rounds: 1259, rows: one("runesToString", "string")},
	{name: "itoa", run: itoa, rounds: 1277, rows: one("itoa", "string"), sharesBlocks: true},
	{name: "sprintf", run: sprintf, rounds: 1279},
	{name: "build", run: build, rounds: 1283},
	{name: "makeMap", run: makeMap, rounds: 1289},
	{name: "makeMapHint", run: makeMapHint, rounds: 307},
	{name: "growMap", run: growMap, rounds: 311},
	{name: "growStringMap", run: growStringMap, rounds: 313},
	{name: "makeChanInts", run: makeChanInts, rounds: 1291, rows: one("makeChanInts", "makechan")},
	{name: "makeChanUnbuffered", run: makeChanUnbuffered, rounds: 1297, rows: one("makeChanUnbuffered", "makechan")},
	{name: "makeChanPointers", run: makeChanPointers, rounds: 1301, rows: []row{
		{Type: "runtime.hchan", Kind: "makechan", Marker: "makeChanPointers", Objects: 1},
		{Type: "*main.scanT48", Kind: "makechan", Marker: "makeChanPointers", Objects: 1, Requested: 80},
	}},

	{name: "closure", run: closure, rounds: 1303, rows: one("closure", "closure")},
	{name: "closureByReference", run: closureByReference, rounds: 1307, rows: []row{
		{Type: "main.scanT24", Kind: "newobject", Marker: "captured", Objects: 1, Requested: 24},
		{Kind: "closure", Marker: "closureByReference", Objects: 1, Requested: 16},
	}},
	{name: "methodValue", run: methodValue, rounds: 1319, rows: one("methodValue", "closure")},
	{name: "inlinedA", run: inlinedA, rounds: 1321, frames: inlined("newLeaf", "inlinedA"), rows: object("newLeaf", "main.leaf", 16)},
	{name: "inlinedB", run: inlinedB, rounds: 1327, frames: inlined("newLeaf", "inlinedB"), rows: object("newLeaf", "main.leaf", 16)},
	{name: "inlinedTwice", run: inlinedTwice, rounds: 1361, frames: inlined("newLeaf", "newTree", "inlinedTwice"), rows: object("newLeaf", "main.leaf", 16)},
	{name: "genericScan", run: genericScan, rounds: 1367, frames: []frame{{Function: "main.newOf[...]", Marker: "newOf"}, {Function: "main.genericScan"}}, rows: generic("main.pairA", "main.pairB")},
	{name: "genericNoscan", run: genericNoscan, rounds: 1373, frames: []frame{{Function: "main.newOf[...]", Marker: "newOf"}, {Function: "main.genericNoscan"}}, rows: generic("main.pointsA", "main.pointsB")},
	{name: "structToInterface", run: structToInterface, rounds: 1381, rows: []row{{Type: "main.scanT160", Kind: "interface", Marker: "structToInterface", Objects: 1, Requested: 160}}},
	{name: "intToInterface", run: intToInterface, rounds: 1399, rows: one("intToInterface", "interface"), sharesBlocks: true},
	{name: "stringToInterface", run: stringToInterface, rounds: 1409, rows: []row{{Kind: "interface", Marker: "stringToInterface", Objects: 1, Requested: 16}}},
	{name: "byReflection", run: byReflection, rounds: 1423, rows: []row{{Type: "main.scanT64", Marker: "byReflection", Objects: 1, Requested: 64}}},
	{name: "deep", run: deep, rounds: 1427, frames: []frame{{Function: "main.deepBottom", Marker: "deepBottom"}}, rows: object("deepBottom", "main.scanT32", 32)},
	{name: "tooDeep", run: tooDeep, rounds: 101, workers: 3, frames: []frame{{Function: "main.tooDeepBottom", Marker: "tooDeepBottom"}}, rows: object("tooDeepBottom", "main.scanT64", 64)},
	{name: "parallelScan", run: parallelScan, rounds: 5003, workers: 4, rows: object("parallelScan", "main.scanT48", 48)},
	{name: "parallelNoscan", run: parallelNoscan, rounds: 5009, workers: 4, rows: object("parallelNoscan", "main.noscanT96", 96)},
	{name: "parallelTiny", run: parallelTiny, rounds: 5011, workers: 4, rows: object("parallelTiny", "int32", 4), sharesBlocks: true},
}, cgoSites...)
