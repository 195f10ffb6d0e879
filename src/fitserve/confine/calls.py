"""The system calls that a confined process may make: what NumPy, the model libraries and uvicorn need.

Each is ``name:number on x86-64:number on aarch64``, with ``-`` where a machine has no such call.
What is not here is refused. A call comes here when a library cannot do without, and only if it
reaches nothing beyond the process that Landlock does not watch over: so ``chmod``, ``chown``,
``utimensat`` and ``setxattr`` are missing, which Landlock lets pass.

Source of the numbers: asm/unistd_64.h and asm-generic/unistd.h of Linux 6.1; tests compare them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fitserve.confine.kernel import Machine

NEWEST = 450
"""Highest number that was known when the list was made. A newer call answers ENOSYS, so that libc uses an older one."""

_FILES = """
read:0:63 pread64:17:67 readv:19:65 preadv:295:69 preadv2:327:286 lseek:8:62 open:2:- openat:257:56
openat2:437:437 close:3:57 close_range:436:436 stat:4:- lstat:6:- fstat:5:80 newfstatat:262:79 statx:332:291
statfs:137:43 fstatfs:138:44 access:21:- faccessat:269:48 faccessat2:439:439 readlink:89:- readlinkat:267:78
getdents:78:- getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 umask:95:166 getxattr:191:8
lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11 llistxattr:195:12 flistxattr:196:13 readahead:187:213
fadvise64:221:223 inotify_init:253:- inotify_init1:294:26 inotify_add_watch:254:27 inotify_rm_watch:255:28
sync_file_range:277:84 fsync:74:82 fdatasync:75:83 flock:73:32 dup:32:23 dup2:33:- dup3:292:24
write:1:64 pwrite64:18:68 writev:20:66 pwritev:296:70 pwritev2:328:287 ftruncate:77:46 fallocate:285:47
copy_file_range:326:285 sendfile:40:71 splice:275:76 tee:276:77 creat:85:-
"""

_MEMORY = """
mmap:9:222 munmap:11:215 mprotect:10:226 mremap:25:216 madvise:28:233 brk:12:214 msync:26:227 mincore:27:232
mlock:149:228 mlock2:325:284 munlock:150:229 pkey_mprotect:329:288 pkey_alloc:330:289 pkey_free:331:290
mbind:237:235 get_mempolicy:239:236 set_mempolicy:238:237 membarrier:324:283
"""

_THREADS = """
futex:202:98 futex_waitv:449:449 set_robust_list:273:99 get_robust_list:274:100 set_tid_address:218:96
rseq:334:293 sched_yield:24:124 sched_getaffinity:204:123 sched_setaffinity:203:122 sched_getparam:143:121
sched_getscheduler:145:120 sched_getattr:315:275 sched_get_priority_max:146:125
sched_get_priority_min:147:126 sched_rr_get_interval:148:127 getcpu:309:168 gettid:186:178
exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95 restart_syscall:219:128
"""

_FACTS = """
getpid:39:172 getppid:110:173 getpgid:121:155 getpgrp:111:- getsid:124:156 getuid:102:174 geteuid:107:175
getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158 capget:125:90
getpriority:140:141 getrlimit:97:163 getrusage:98:165 uname:63:160 sysinfo:99:179 times:100:153
arch_prctl:158:- getrandom:318:278 gettimeofday:96:169 time:201:- clock_gettime:228:113 clock_getres:229:114
"""

_WAITING = """
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigtimedwait:128:137
rt_sigsuspend:130:133 sigaltstack:131:132 signalfd:282:- signalfd4:289:74 pause:34:- alarm:37:-
getitimer:36:102 setitimer:38:103 timer_create:222:107 timer_settime:223:110 timer_gettime:224:108
timer_getoverrun:225:109 timer_delete:226:111 timerfd_create:283:85 timerfd_settime:286:86
timerfd_gettime:287:87 nanosleep:35:101 clock_nanosleep:230:115
poll:7:- ppoll:271:73 select:23:- pselect6:270:72 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21
epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 pipe:22:- pipe2:293:59
"""

_SERVING = """
accept:43:202 accept4:288:242 listen:50:201 shutdown:48:210 getsockname:51:204 getpeername:52:205
getsockopt:55:209 setsockopt:54:208 recvfrom:45:207 recvmsg:47:212 recvmmsg:299:243
"""

_CHANGING_FOLDERS = """
mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:- unlinkat:263:35 rename:82:- renameat:264:38
renameat2:316:276 link:86:- linkat:265:37 symlink:88:- symlinkat:266:36 truncate:76:45
"""

_WITH_CONDITIONS = """
clone:56:220 fork:57:- clone3:435:435 kill:62:129 tgkill:234:131 prlimit64:302:261 prctl:157:167 ioctl:16:29 fcntl:72:25
sendto:44:206 sendmsg:46:211 sendmmsg:307:269 socketpair:53:199 socket:41:198 connect:42:203
memfd_create:319:279 seccomp:317:277 io_uring_setup:425:425
"""


def _numbers(table: str, machine: Machine) -> dict[str, int]:
    column = {"x86_64": 1, "aarch64": 2}[machine]
    entries = (entry.split(":") for entry in table.split())
    return {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}


def allowed(machine: Machine, *, changes_folders: bool) -> dict[str, int]:
    """Numbers by name of the calls that are allowed whatever their arguments."""
    table = _FILES + _MEMORY + _THREADS + _FACTS + _WAITING + _SERVING
    return _numbers(table + (_CHANGING_FOLDERS if changes_folders else ""), machine)


def conditional(machine: Machine) -> dict[str, int]:
    """Numbers by name of the calls that are allowed with some arguments only."""
    return _numbers(_WITH_CONDITIONS, machine)
