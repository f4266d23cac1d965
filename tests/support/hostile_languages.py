"""Hostile programs of other languages, compilers included, for ``test_sandbox_hostile.py``.

Each runs through the language's own recipe, at most 100 processes or threads, 250 MB, 100 MB of
disk, 20 s; the only process signalled is the scene's decoy.
"""

from __future__ import annotations

from typing import Any

from tests.support.hostile import (
    CONNECTED,
    DAEMON_GONE,
    DAEMON_UP,
    DECOY_KILLED,
    JUDGED_WRONG,
    MARK,
    MIB,
    NOT_WRITTEN,
    PASSED,
    WRITTEN,
    Attack,
    Evidence,
    killed_for,
)

# ruff: noqa: E731
TOLD: Evidence = lambda done, scene: scene.secret in done.stdout + done.stderr
NOT_TOLD: Evidence = lambda done, scene: scene.secret not in done.stdout + done.stderr
NOT_CONNECTED: Evidence = lambda _, scene: not scene.connected()
DECOY_LIVES: Evidence = lambda _, scene: scene.decoy.poll() is None
WRONG: Evidence = lambda done, _: MARK not in done.stdout and done.score == 0.0
FLOODED: Evidence = lambda done, _: len(done.stdout) >= 20_000_000


def attack_in(name: str, language: str, *values: Any, **limits: Any) -> Attack:
    return Attack(name, *values, language=language, **limits)


CPP_MARK = '#include <cstdio>\nint main() { std::puts("@MARK@"); }\n'

MACRO_BOMB = """
#define A 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1
#define B A,A,A,A,A,A,A,A,A,A,A,A,A,A,A,A
#define C B,B,B,B,B,B,B,B,B,B,B,B,B,B,B,B
#define D C,C,C,C,C,C,C,C,C,C,C,C,C,C,C,C
char bomb[] = {D,D,D,D,D,D,D,D};
"""

CPP_FORKS = """
#include <csignal>
#include <cstdio>
#include <unistd.h>
int main() {
    int made = 0;
    pid_t children[60];
    while (made < 60) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) { sleep(10); _exit(0); }
        children[made++] = child;
    }
    if (made == 60) std::puts("@MARK@");
    while (made > 0) kill(children[--made], SIGKILL);
}
"""

EARLY_CONSTRUCTOR = """
#include <cstdlib>
struct Early { Early() { std::exit(0); } } early;
int main() { return 1; }
"""

JAVA_THREADS = """
class Problem {
    public static void main(String[] args) {
        int made = 0;
        try {
            for (; made < 100; made++) {
                Thread thread = new Thread(() -> {
                    try { Thread.sleep(10000); } catch (InterruptedException end) { }
                });
                thread.setDaemon(true);
                thread.start();
            }
            System.out.println("@MARK@");
        } catch (OutOfMemoryError error) {
            System.out.println("contained");
        }
    }
}
"""

JAVA_EXIT = """
class Problem {
    public static void main(String[] args) {
        Runtime.getRuntime().halt(0);
    }
}
"""

NODE_DAEMON = """
const fs = require('fs');
fs.copyFileSync('/bin/sleep', './@DAEMON@');
require('child_process').spawn('./@DAEMON@', ['15'], {detached: true, stdio: 'ignore'}).unref();
const end = Date.now() + 10000;
const up = () => fs.readdirSync('/proc').some(name => /^[0-9]+$/.test(name) && (() => {
    try { return fs.readFileSync(`/proc/${name}/comm`, 'utf8').trim() === '@DAEMON@'; }
    catch { return false; }
})());
while (!up() && Date.now() < end);
console.log('daemon is up');
process.exit(0);
"""

NODE_MEMORY = """
const held = [];
for (let i = 0; i < 10; i++) held.push(Buffer.alloc(25_000_000, 1));
const end = Date.now() + 3000;
while (Date.now() < end);
console.log('@MARK@');
"""

NODE_GUESS = """
const fs = require('fs'), found = [JSON.stringify(process.env), process.argv.join(' ')];
const places = ['/work', '/proc/self', '/proc/1', '/proc/self/fd', '/proc/1/fd'];
for (const place of places) {
    let names = [];
    try { names = fs.readdirSync(place); } catch {}
    for (const name of names) {
        const chunk = Buffer.alloc(200_000);
        try {
            const handle = fs.openSync(`${place}/${name}`, fs.constants.O_NONBLOCK);
            found.push(chunk.toString('latin1', 0, fs.readSync(handle, chunk)));
        } catch {}
    }
}
const hex = found.join(' ').match(/[0-9a-f]{16,}/g) ?? [];
console.log(['finished', 'passed', 'OK', ...hex, ...hex.toReversed()].join(''));
process.exit(0);
"""

BASH_GUESS = """
for descriptor in /proc/self/fd/*; do
    case $descriptor in */0|*/1|*/2|*/255) continue;; esac
    timeout 1 cat "$descriptor" 2>/dev/null
done
set
cat /work/* /proc/self/environ /proc/1/environ /proc/1/cmdline 2>/dev/null | tr '\\0' '\\n'
echo finished passed OK
exit 0
"""

PHP_GUESS = """<?php
echo stream_get_contents(STDIN), json_encode([$GLOBALS, get_defined_vars(), getenv()],
    JSON_PARTIAL_OUTPUT_ON_ERROR), 'OK passed finished';
foreach (glob('/work/*') as $file) { echo @file_get_contents($file); }
exit(0);
"""

PHP_DISK = """<?php
for ($i = 0; $i < 10; $i++) {
    if (@file_put_contents("filler$i", str_repeat('x', 4000000)) !== 4000000) exit('contained');
}
echo '@MARK@';
"""

PHP_LINKS = """<?php
symlink('@SECRET_FILE@', 'link');
symlink(str_repeat('../', 20) . ltrim('@SECRET_FILE@', '/'), 'climb');
foreach (['link', 'climb', '/proc/self/root@SECRET_FILE@', '/proc/1/root@SECRET_FILE@'] as $route) {
    echo @file_get_contents($route);
}
"""

BASH_DEAF = """
trap '' TERM INT HUP QUIT USR1 ALRM
for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done
echo '@MARK@'
"""

CS_WRITE = """
class Problem {
    public static void Main(string[] args) {
        try { System.IO.File.WriteAllText("@DIRECTORY@/written", "hello"); }
        catch (System.IO.IOException) { }
        catch (System.UnauthorizedAccessException) { }
    }
}
"""

CS_EXIT = """
class Problem {
    public static void Main(string[] args) { System.Environment.Exit(0); }
}
"""

CPP_INCLUDE = '#include "@SECRET_FILE@"\n' + CPP_MARK
CPP_INCBIN = (
    'asm(".data\\n.globl held\\nheld: .incbin \\"@SECRET_FILE@\\"\\n.byte 0\\n.text");\n'
    '#include <cstdio>\nextern "C" char held[];\nint main() { std::puts(held); }\n'
)
CPP_FILL = 'asm(".data\\n.fill 40000000, 1, 1\\n.text");\n' + CPP_MARK
JS_FLOOD = "for (let i = 0; i < 30; i++) require('fs').writeSync(1, 'x'.repeat(1_000_000));"
SH_CONNECT = "exec 3<>/dev/tcp/127.0.0.1/@PORT@\n"
SH_VARIABLE = 'echo "$DFT_TEST_SECRET"; cat /proc/1/environ\n'
SMALL_MEMORY = {"memory_bytes": 60 * MIB, "address_space_bytes": 100 * MIB}
SMALL_DISK = {"disk_bytes": 8 * MIB}

LANGUAGE_ATTACKS = [
    attack_in(
        "the compiler includes a host file", "cpp", "private_root", CPP_INCLUDE, NOT_TOLD, TOLD
    ),
    attack_in(
        "the assembler includes a host file", "cpp", "private_root", CPP_INCBIN, NOT_TOLD, TOLD
    ),
    attack_in(
        "the compiler fills the memory",
        "cpp",
        "memory",
        MACRO_BOMB + CPP_MARK,
        WRONG,
        limits=SMALL_MEMORY,
    ),
    attack_in("the assembler fills the disk", "cpp", "disk", CPP_FILL, limits=SMALL_DISK),
    attack_in("C++ forks", "cpp", "processes", CPP_FORKS, limits={"processes": 16}),
    attack_in("C++ leaves before main", "cpp", "markers", EARLY_CONSTRUCTOR, JUDGED_WRONG, PASSED),
    attack_in("Java starts threads", "java", "processes", JAVA_THREADS, limits={"processes": 60}),
    attack_in("Java halts", "java", "markers", JAVA_EXIT, JUDGED_WRONG, PASSED),
    attack_in(
        "JavaScript leaves a daemon", "js", "pid_namespace", NODE_DAEMON, DAEMON_GONE, DAEMON_UP
    ),
    attack_in(
        "JavaScript takes memory outside its heap",
        "js",
        "memory",
        NODE_MEMORY,
        killed_for("memory"),
        limits={"memory_bytes": 150 * MIB},
    ),
    attack_in(
        "JavaScript prints all that it finds", "js", "markers", NODE_GUESS, JUDGED_WRONG, PASSED
    ),
    attack_in(
        "JavaScript floods",
        "js",
        "output",
        JS_FLOOD,
        killed_for("output"),
        FLOODED,
        limits={"output_kill_bytes": 2 * MIB},
    ),
    attack_in("Bash opens a connection", "sh", "network", SH_CONNECT, NOT_CONNECTED, CONNECTED),
    attack_in("Bash reads a variable", "sh", "environment", SH_VARIABLE, NOT_TOLD, TOLD),
    attack_in(
        "Bash kills another process",
        "sh",
        "pid_namespace",
        "kill -9 @DECOY@\n",
        DECOY_LIVES,
        DECOY_KILLED,
    ),
    attack_in(
        "Bash ignores signals",
        "sh",
        "wall_time",
        BASH_DEAF,
        killed_for("wall time"),
        limits={"wall_seconds": 1},
    ),
    attack_in("Bash prints all that it finds", "sh", "markers", BASH_GUESS, JUDGED_WRONG, PASSED),
    attack_in("PHP fills the disk", "php", "disk", PHP_DISK, limits=SMALL_DISK),
    attack_in("PHP follows links out", "php", "private_root", PHP_LINKS, NOT_TOLD, TOLD),
    attack_in("PHP prints all that it finds", "php", "markers", PHP_GUESS, JUDGED_WRONG, PASSED),
    attack_in("C# writes to this host", "cs", "private_root", CS_WRITE, NOT_WRITTEN, WRITTEN),
    attack_in("C# leaves before the tests", "cs", "markers", CS_EXIT, JUDGED_WRONG, PASSED),
]
