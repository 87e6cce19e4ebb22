//! Allocator that takes memory from a fixed buffer, so that the linear memory of the guest never grows. It never
//! frees: every request has a fresh instance.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

const BYTES: usize = 64 << 10;

struct Arena {
    bytes: UnsafeCell<[u8; BYTES]>,
    used: UnsafeCell<usize>,
}

// a component has one thread
unsafe impl Sync for Arena {}

unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (start, used) = (self.bytes.get() as usize, self.used.get());
        let from = (start + unsafe { *used }).next_multiple_of(layout.align()) - start;
        let Some(to) = from.checked_add(layout.size()).filter(|to| *to <= BYTES) else {
            return null_mut();
        };
        unsafe {
            *used = to;
            self.bytes.get().cast::<u8>().add(from)
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ARENA: Arena = Arena {
    bytes: UnsafeCell::new([0; BYTES]),
    used: UnsafeCell::new(0),
};
