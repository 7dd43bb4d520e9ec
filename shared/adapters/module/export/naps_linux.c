// Go's runtime has a thread (sysmon) that naps for 20 µs at a time while Go is busy, and Go is always busy where Envoy calls it for
// each request: thousands of wake-ups a second that find nothing to do. On a small or virtual machine they cost more than the filter.
// The kernel may make a nap longer by the timer slack of its thread (prctl(2), PR_SET_TIMERSLACK), which a thread inherits from the
// one that starts it. So the slack is raised while Go's first thread is started, from which all others of Go come, and put back:
// Envoy's own threads keep theirs. A timer of Go may be late by as much; the shortest one that Inlet has is feed.Period.
//
// docs/rationale.md has what it gains.
#include <sys/prctl.h>

static const unsigned long slack = 5000000; // ns
static int before;                          // slack of the thread that loads the library

// Go's runtime begins in a constructor of the library without a priority. Those with one run earlier.
__attribute__((constructor(101))) static void loosen(void) {
	before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	if (before >= 0) {
		prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
	}
}

// This file is linked behind Go's code, so that this constructor, without a priority, runs after Go's.
__attribute__((constructor)) static void restore(void) {
	if (before >= 0) {
		prctl(PR_SET_TIMERSLACK, (unsigned long)before, 0, 0, 0);
	}
}
