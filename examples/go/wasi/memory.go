package wasi

import "unsafe"

// An interface of WASI that returns text or bytes asks the component for memory, by calling cabi_realloc. Calls made from there
// to the host trap, and the garbage collector makes them (it reads the clock), so the memory is a static array.
//
// Before the first request the adapter of WASI takes memory that it keeps. Afterwards only results of the functions in this
// package are placed here. Each is copied before the next call, so `call` reuses the memory.
var (
	memory [(adapterMax + resultMax) / 8]uint64
	// used is the number of bytes in use, kept the number of those that the adapter keeps.
	used, kept uintptr
)

const (
	adapterMax = 256 << 10
	// resultMax is the space for one result. The largest is what one read returns; a path, or an entry of the configuration, is shorter.
	resultMax = readMax + 16<<10
)

// realloc returns memory for a result of the host, and traps when there is none.
//
//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	start := (used + align - 1) &^ (align - 1)
	if old != nil || start+size > unsafe.Sizeof(memory) {
		panic("wasi: no memory for a result of the host")
	}
	used = start + size
	return unsafe.Add(unsafe.Pointer(&memory), start)
}

// results makes the memory of earlier results available again.
func results() {
	used = kept
}

// text copies a string that the host has placed in memory.
func text(pointer, length uint32) string {
	return string(bytes(pointer, length))
}

// bytes returns memory that the host has written. It is valid until the next call of the host.
func bytes(pointer, length uint32) []byte {
	if length == 0 {
		return nil
	}
	at := uintptr(pointer) - uintptr(unsafe.Pointer(&memory))
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(&memory), at)), length)
}
