/* Records what a process does to the files below a folder: each change with its octets, each sync, and what it tells on
 * its standard output, in the one order in which they happened. Preloaded; the names of the folder (absolute, without
 * links) and of the log are in POSTROAD_RECORD_FOLDER and POSTROAD_RECORD_LOG. The format is read by recording.rs.
 *
 * The real calls are made by syscall(2), under one lock, so that no other order was ever possible. Stands behind raw_calls.c. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAME_MAX_LEN 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;
static char root[NAME_MAX_LEN];
static size_t root_len;

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("POSTROAD_RECORD_FOLDER"), *log = getenv("POSTROAD_RECORD_LOG");
  if (!folder || !log || strlen(folder) >= sizeof root) return;
  strcpy(root, folder);
  root_len = strlen(root);
  out = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0) _exit(90);
}

/* An entry: kind, inode, place, lengths of two texts, the texts. */
static void put(char kind, uint64_t ino, uint64_t at, const void *a, size_t a_len, const void *b, size_t b_len) {
  struct { uint64_t kind, ino, at; uint32_t a_len, b_len; } head = {(unsigned char)kind, ino, at, (uint32_t)a_len, (uint32_t)b_len};
  const char *parts[] = {(const char *)&head, a, b};
  size_t lengths[] = {sizeof head, a_len, b_len};
  for (int i = 0; i < 3; i++)
    for (size_t done = 0; done < lengths[i];) {
      long n = syscall(SYS_write, out, parts[i] + done, lengths[i] - done);
      if (n <= 0) _exit(91);
      done += (size_t)n;
    }
}

static void put_names(char kind, uint64_t ino, const char *a, const char *b) {
  put(kind, ino, 0, a, strlen(a), b ? b : "", b ? strlen(b) : 0);
}

/* What this library does not follow, so that nobody trusts the log. */
static void escaped(const char *call) { put_names('X', 0, call, NULL); }

/* The part of a name below the folder; none if it is not below it. */
static const char *below(const char *name) {
  if (out < 0 || strncmp(name, root, root_len)) return NULL;
  if (name[root_len] == 0) return name + root_len;
  return name[root_len] == '/' ? name + root_len + 1 : NULL;
}

static int name_of(int fd, char *full) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, full, NAME_MAX_LEN - 1);
  if (n < 0) return 0;
  full[n] = 0;
  return 1;
}

static const char *resolve(int folder, const char *name, char *full) {
  if (out < 0 || !name) return NULL;
  if (name[0] == '/') {
    if (strlen(name) >= NAME_MAX_LEN) return NULL;
    strcpy(full, name);
  } else {
    if (folder == AT_FDCWD ? !getcwd(full, NAME_MAX_LEN / 2) : !name_of(folder, full)) return NULL;
    if (strlen(full) + strlen(name) + 2 > NAME_MAX_LEN) return NULL;
    strcat(full, "/");
    strcat(full, name);
  }
  for (size_t n = strlen(full); n > 1 && full[n - 1] == '/'; n--) full[n - 1] = 0;
  return below(full);
}

/* Whether a descriptor is one of a file or folder below ours. */
static const char *tracked(int fd, struct stat *found, char *full) {
  if (out < 0 || fd == out || fstat(fd, found) || !(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode))) return NULL;
  return name_of(fd, full) ? below(full) : NULL;
}

#define ENTER char full[NAME_MAX_LEN], other[NAME_MAX_LEN]; struct stat found; (void)full; (void)other; (void)found; pthread_mutex_lock(&lock)
#define LEAVE(value) do { int kept = errno; pthread_mutex_unlock(&lock); errno = kept; return value; } while (0)

static int do_open(int folder, const char *name, int flags, mode_t mode) {
  ENTER;
  const char *where = resolve(folder, name, full);
  int writes = flags & (O_CREAT | O_TRUNC);
  int is_new = where && writes && fstatat(folder, name, &found, 0) != 0;
  uint64_t old_size = where && writes && !is_new ? (uint64_t)found.st_size : 0;
  int fd = (int)syscall(SYS_openat, folder, name, flags, mode);
  if (fd >= 0 && where && writes && !fstat(fd, &found) && S_ISREG(found.st_mode)) {
    if ((flags & O_TMPFILE) == O_TMPFILE) escaped("O_TMPFILE");
    else if (is_new) put_names('C', found.st_ino, where, NULL);
    else if ((flags & O_TRUNC) && old_size) put('T', found.st_ino, 0, "", 0, "", 0);
  }
  LEAVE(fd);
}

#define MODE(last) mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, last); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *name, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return do_open(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return do_open(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

static void wrote(uint64_t ino, uint64_t at, const char *octets, size_t len) {
  int zeros = len >= 4096;
  for (size_t i = 0; zeros && i < len; i++) zeros = octets[i] == 0;
  if (zeros) {
    uint64_t n = len;
    put('Z', ino, at, &n, sizeof n, "", 0);
  } else put('W', ino, at, octets, len, "", 0);
}

ssize_t write(int fd, const void *octets, size_t len) {
  ENTER;
  long n = syscall(SYS_write, fd, octets, len);
  if (n > 0 && out >= 0 && fd == 1) put('P', 0, 0, octets, (size_t)n, "", 0);
  else if (n > 0 && tracked(fd, &found, full)) wrote(found.st_ino, (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), octets, (size_t)n);
  LEAVE(n);
}

ssize_t pwrite64(int fd, const void *octets, size_t len, off64_t at) {
  ENTER;
  long n = syscall(SYS_pwrite64, fd, octets, len, at);
  if (n > 0 && tracked(fd, &found, full)) wrote(found.st_ino, (uint64_t)at, octets, (size_t)n);
  LEAVE(n);
}
ssize_t pwrite(int fd, const void *octets, size_t len, off_t at) { return pwrite64(fd, octets, len, at); }

static void wrote_parts(uint64_t ino, uint64_t at, const struct iovec *parts, int count, size_t len) {
  char *joined = malloc(len);
  size_t done = 0;
  for (int i = 0; i < count && done < len; i++) {
    size_t n = parts[i].iov_len < len - done ? parts[i].iov_len : len - done;
    memcpy(joined + done, parts[i].iov_base, n);
    done += n;
  }
  if (ino) wrote(ino, at, joined, len);
  else put('P', 0, 0, joined, len, "", 0);
  free(joined);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  ENTER;
  long n = syscall(SYS_writev, fd, parts, count);
  if (n > 0 && out >= 0 && fd == 1) wrote_parts(0, 0, parts, count, (size_t)n);
  else if (n > 0 && tracked(fd, &found, full)) wrote_parts(found.st_ino, (uint64_t)(lseek(fd, 0, SEEK_CUR) - n), parts, count, (size_t)n);
  LEAVE(n);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  ENTER;
  long n = syscall(SYS_pwritev, fd, parts, count, at, 0);
  if (n > 0 && tracked(fd, &found, full)) wrote_parts(found.st_ino, (uint64_t)at, parts, count, (size_t)n);
  LEAVE(n);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

int ftruncate64(int fd, off64_t size) {
  ENTER;
  uint64_t old = tracked(fd, &found, full) ? (uint64_t)found.st_size : (uint64_t)size;
  int outcome = (int)syscall(SYS_ftruncate, fd, size);
  if (!outcome && old != (uint64_t)size) put('T', found.st_ino, (uint64_t)size, "", 0, "", 0);
  LEAVE(outcome);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int how, off64_t at, off64_t len) {
  ENTER;
  const char *where = tracked(fd, &found, full);
  int outcome = (int)syscall(SYS_fallocate, fd, how, at, len);
  if (!outcome && where) {
    if (how & ~FALLOC_FL_KEEP_SIZE) escaped("fallocate");
    else if (!how && at + len > found.st_size) put('T', found.st_ino, (uint64_t)(at + len), "", 0, "", 0);
  }
  LEAVE(outcome);
}
int fallocate(int fd, int how, off_t at, off_t len) { return fallocate64(fd, how, at, len); }
int posix_fallocate64(int fd, off64_t at, off64_t len) { return fallocate64(fd, 0, at, len) ? errno : 0; }
int posix_fallocate(int fd, off_t at, off_t len) { return posix_fallocate64(fd, at, len); }

static int do_rename(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  ENTER;
  const char *a = resolve(from_folder, from, full), *b = resolve(to_folder, to, other);
  int outcome = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  if (!outcome && (a || b)) {
    if (a && b && !(flags & ~1u)) put_names('R', 0, a, b);
    else escaped("rename");
  }
  LEAVE(outcome);
}
int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return do_rename(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return do_rename(a, from, b, to, flags); }

static int do_link(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  ENTER;
  const char *a = resolve(from_folder, from, full), *b = resolve(to_folder, to, other);
  int outcome = (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  if (!outcome && b) {
    if (a) put_names('L', 0, a, b);
    else escaped("link");
  }
  LEAVE(outcome);
}
int link(const char *from, const char *to) { return do_link(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return do_link(a, from, b, to, flags); }

static int do_unlink(int folder, const char *name, int flags) {
  ENTER;
  const char *where = resolve(folder, name, full);
  int outcome = (int)syscall(SYS_unlinkat, folder, name, flags);
  if (!outcome && where) put_names('U', 0, where, NULL);
  LEAVE(outcome);
}
int unlink(const char *name) { return do_unlink(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return do_unlink(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int folder, const char *name, int flags) { return do_unlink(folder, name, flags); }

static int do_mkdir(int folder, const char *name, mode_t mode) {
  ENTER;
  const char *where = resolve(folder, name, full);
  int outcome = (int)syscall(SYS_mkdirat, folder, name, mode);
  if (!outcome && where) put_names('M', 0, where, NULL);
  LEAVE(outcome);
}
int mkdir(const char *name, mode_t mode) { return do_mkdir(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return do_mkdir(folder, name, mode); }

static int do_sync(int fd, long call) {
  ENTER;
  const char *where = tracked(fd, &found, full);
  int outcome = call == SYS_syncfs ? REAL_SYNCFS(fd) : (int)syscall(call, fd);
  if (!outcome && where) {
    if (call == SYS_syncfs) put('A', 0, 0, "", 0, "", 0);
    else if (S_ISDIR(found.st_mode)) put_names('F', 0, where, NULL);
    else put('S', found.st_ino, 0, "", 0, "", 0);
  }
  LEAVE(outcome);
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
int syncfs(int fd) { return do_sync(fd, SYS_syncfs); }
void sync(void) {
  ENTER;
  syscall(SYS_sync);
  if (out >= 0) put('A', 0, 0, "", 0, "", 0);
  pthread_mutex_unlock(&lock);
}

static ssize_t unseen(const char *call, int fd, long n) {
  ENTER;
  if (n > 0 && tracked(fd, &found, full)) escaped(call);
  LEAVE(n);
}
ssize_t copy_file_range(int in, off64_t *from, int to, off64_t *at, size_t len, unsigned flags) {
  return unseen("copy_file_range", to, syscall(SYS_copy_file_range, in, from, to, at, len, flags));
}
ssize_t sendfile64(int to, int in, off64_t *from, size_t len) { return unseen("sendfile", to, syscall(SYS_sendfile, to, in, from, len)); }
ssize_t sendfile(int to, int in, off_t *from, size_t len) { return sendfile64(to, in, from, len); }
int symlink(const char *to, const char *name) {
  ENTER;
  int outcome = (int)syscall(SYS_symlinkat, to, AT_FDCWD, name);
  if (!outcome && resolve(AT_FDCWD, name, full)) escaped("symlink");
  LEAVE(outcome);
}
int truncate64(const char *name, off64_t size) {
  ENTER;
  int outcome = (int)syscall(SYS_truncate, name, size);
  if (!outcome && resolve(AT_FDCWD, name, full)) escaped("truncate");
  LEAVE(outcome);
}
int truncate(const char *name, off_t size) { return truncate64(name, size); }
void *mmap64(void *at, size_t len, int may, int how, int fd, off64_t from) {
  struct stat found;
  char full[NAME_MAX_LEN];
  void *mapped = (void *)syscall(SYS_mmap, at, len, may, how, fd, from);
  if (mapped != MAP_FAILED && fd >= 0 && (how & MAP_SHARED) && (may & PROT_WRITE)) {
    pthread_mutex_lock(&lock);
    if (tracked(fd, &found, full)) escaped("mmap");
    pthread_mutex_unlock(&lock);
  }
  return mapped;
}
void *mmap(void *at, size_t len, int may, int how, int fd, off_t from) { return mmap64(at, len, may, how, fd, from); }
