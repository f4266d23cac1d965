"""Hostile programs of other languages, compilers included, for ``test_sandbox_hostile.py``.

Each runs through the language's own recipe, at most 100 processes or threads, 250 MB, 100 MB of
disk, 20 s; the only process signalled is the scene's decoy.
"""

from __future__ import annotations

from functools import partial

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
    Evidence,
    attack,
    killed_for,
)

# ruff: noqa: E731
SECRET: Evidence = lambda result, scene: scene.secret in result.stdout + result.stderr
SECRET_HIDDEN: Evidence = lambda result, scene: scene.secret not in result.stdout + result.stderr
NOT_CONNECTED: Evidence = lambda _, scene: not scene.connected()
DECOY_LIVES: Evidence = lambda _, scene: scene.decoy.poll() is None
WRONG: Evidence = lambda result, _: MARK not in result.stdout and result.score == 0.0
FLOODED: Evidence = lambda result, _: len(result.stdout) >= 20_000_000
MEMORY, OUTPUT = killed_for("memory"), killed_for("output")
cpp, java, js, bash, php, csharp = (
    partial(attack, language=language) for language in ("cpp", "java", "js", "sh", "php", "cs")
)

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
    int count = 0;
    pid_t children[60];
    while (count < 60) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) { sleep(10); _exit(0); }
        children[count++] = child;
    }
    if (count == 60) std::puts("@MARK@");
    while (count > 0) kill(children[--count], SIGKILL);
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
        int count = 0;
        try {
            for (; count < 100; count++) {
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
const fs = require('fs'), texts = [JSON.stringify(process.env), process.argv.join(' ')];
const places = ['/work', '/proc/self', '/proc/1', '/proc/self/fd', '/proc/1/fd'];
for (const place of places) {
    let names = [];
    try { names = fs.readdirSync(place); } catch {}
    for (const name of names) {
        const chunk = Buffer.alloc(200_000);
        try {
            const handle = fs.openSync(`${place}/${name}`, fs.constants.O_NONBLOCK);
            texts.push(chunk.toString('latin1', 0, fs.readSync(handle, chunk)));
        } catch {}
    }
}
const hex = texts.join(' ').match(/[0-9a-f]{16,}/g) ?? [];
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
SH_KILL = "kill -9 @DECOY@\n"
SH_VARIABLE = 'echo "$DFT_TEST_SECRET"; cat /proc/1/environ\n'
SMALL_MEMORY = {"memory_bytes": 60 * MIB, "address_space_bytes": 100 * MIB}
SMALL_DISK = {"disk_bytes": 8 * MIB}
NODE_LIMIT = {"memory_bytes": 150 * MIB}

LANGUAGE_ATTACKS = [
    cpp("the compiler includes a host file", "private_root", CPP_INCLUDE, SECRET_HIDDEN, SECRET),
    cpp("the assembler includes a host file", "private_root", CPP_INCBIN, SECRET_HIDDEN, SECRET),
    cpp("the compiler fills the memory", "memory", MACRO_BOMB + CPP_MARK, WRONG, **SMALL_MEMORY),
    cpp("the assembler fills the disk", "disk", CPP_FILL, **SMALL_DISK),
    cpp("C++ forks", "processes", CPP_FORKS, processes=16),
    cpp("C++ leaves before main", "markers", EARLY_CONSTRUCTOR, JUDGED_WRONG, PASSED),
    java("Java starts threads", "processes", JAVA_THREADS, processes=60),
    java("Java halts", "markers", JAVA_EXIT, JUDGED_WRONG, PASSED),
    js("JavaScript leaves a daemon", "pid_namespace", NODE_DAEMON, DAEMON_GONE, DAEMON_UP),
    js("JavaScript takes memory outside its heap", "memory", NODE_MEMORY, MEMORY, **NODE_LIMIT),
    js("JavaScript prints all that it finds", "markers", NODE_GUESS, JUDGED_WRONG, PASSED),
    js("JavaScript floods", "output", JS_FLOOD, OUTPUT, FLOODED, output_kill_bytes=2 * MIB),
    bash("Bash opens a connection", "network", SH_CONNECT, NOT_CONNECTED, CONNECTED),
    bash("Bash reads a variable", "environment", SH_VARIABLE, SECRET_HIDDEN, SECRET),
    bash("Bash kills another process", "pid_namespace", SH_KILL, DECOY_LIVES, DECOY_KILLED),
    bash("Bash ignores signals", "wall_time", BASH_DEAF, killed_for("wall time"), wall_seconds=1),
    bash("Bash prints all that it finds", "markers", BASH_GUESS, JUDGED_WRONG, PASSED),
    php("PHP fills the disk", "disk", PHP_DISK, **SMALL_DISK),
    php("PHP follows links out", "private_root", PHP_LINKS, SECRET_HIDDEN, SECRET),
    php("PHP prints all that it finds", "markers", PHP_GUESS, JUDGED_WRONG, PASSED),
    csharp("C# writes to this host", "private_root", CS_WRITE, NOT_WRITTEN, WRITTEN),
    csharp("C# leaves before the tests", "markers", CS_EXIT, JUDGED_WRONG, PASSED),
]
