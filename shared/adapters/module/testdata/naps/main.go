// Command naps is a library with the entry points of a module, to see what loading one changes.
package main

import (
	"C"
	"runtime"
	"syscall"

	_ "github.com/inlet-proxy/inlet/shared/adapters/module/export"
)

const getTimerSlack = 30 // PR_GET_TIMERSLACK, prctl(2)

// slack is the timer slack of a thread of Go's own, in nanoseconds.
//
//export slack
func slack() C.long {
	found := make(chan uintptr)
	go func() {
		runtime.LockOSThread()
		n, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, getTimerSlack, 0, 0)
		found <- n
	}()
	return C.long(<-found)
}

func main() {}
