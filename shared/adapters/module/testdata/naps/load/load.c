// Loads a library as Envoy does and prints the timer slack of this thread before and after, and of a thread of Go.
#include <dlfcn.h>
#include <stdio.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
	int before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	void *library = dlopen(argv[argc - 1], RTLD_LAZY); /* the functions of Envoy are missing, and not called */
	long (*slack)(void) = library ? dlsym(library, "slack") : NULL;
	if (!slack) {
		fputs(dlerror(), stderr);
		return 1;
	}
	printf("%d %d %ld\n", before, prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), slack());
	return 0;
}
