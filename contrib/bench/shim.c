/* Laid under a server by contrib/bench/bench, with LD_PRELOAD or /etc/ld.so.preload:
 *
 *   BENCH_SLOW_MS   every call that syncs sleeps so many milliseconds first: a disk of that latency, on which calls
 *                   of different threads overlap
 *   BENCH_BACKLOG   listen(2) with at least this backlog
 *
 * Either comes from the environment or, for programs that are given none, from the file /etc/NAME. Calls that go
 * round the C library are not reached. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long slow_ms, backlog;

static long told(const char *name)
{
	char path[64], text[16] = "";
	const char *value = getenv(name);
	int file;

	if (value)
		return atol(value);
	snprintf(path, sizeof path, "/etc/%s", name);
	if ((file = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return 0;
	if (read(file, text, sizeof text - 1) < 0)
		text[0] = 0;
	close(file);
	return atol(text);
}

/* Before main: a server may leave its root folder later. */
__attribute__((constructor)) static void begin(void)
{
	slow_ms = told("BENCH_SLOW_MS");
	backlog = told("BENCH_BACKLOG");
}

static void nap(void)
{
	struct timespec left = { slow_ms / 1000, slow_ms % 1000 * 1000000 };
	int kept = errno;

	while (slow_ms && nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	errno = kept;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SLOW(name) \
	int name(int fd) \
	{ \
		static __typeof__(&name) next; \
		if (!next) \
			next = NEXT(name); \
		nap(); \
		return next(fd); \
	}

SLOW(fsync)
SLOW(fdatasync)
SLOW(syncfs)

void sync(void)
{
	nap();
	NEXT(sync)();
}

int listen(int fd, int asked)
{
	return NEXT(listen)(fd, asked < backlog ? backlog : asked);
}
