package interop

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hearth.test/interop/harness"
)

// userMode is a Linux of its own in user mode, for a file system that the kernel of this
// machine does not have. It sees the files of this machine, read-only.
type userMode struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan string
	log   []string
}

// userModeScript is its first process: it mounts the disk at /tmp/data, and runs what it
// is told.
const userModeScript = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc && mount -t tmpfs tmpfs /tmp
stty -echo
ip link set lo up
for module in nls/nls_cp437 nls/nls_iso8859-1 fat/fat fat/vfat; do
	$BUSYBOX insmod "$MODULES/kernel/fs/$module.ko"
done
mkdir /tmp/data && mount -t vfat -o umask=0077 /dev/ubda /tmp/data && echo uml: 0
while read -r line; do eval "$line"; echo "uml: $?"; done
`

// startUserMode starts it on a disk. Without the program of HEARTH_UML, where the package
// user-mode-linux is unpacked, the test is skipped.
func startUserMode(t *testing.T, disk string) *userMode {
	t.Helper()
	programs, _ := filepath.Glob(filepath.Join(os.Getenv("HEARTH_UML"), "usr/bin/linux.uml"))
	modules, _ := filepath.Glob(filepath.Join(os.Getenv("HEARTH_UML"), "usr/lib/uml/modules/*"))
	busybox, err := exec.LookPath("busybox")
	if os.Getenv("HEARTH_UML") == "" || len(programs) == 0 || len(modules) == 0 || err != nil {
		t.Skip("this kernel has no vfat, and there is no Linux in user mode with one")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "init")
	if err := os.WriteFile(script, []byte(userModeScript), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(programs[0], "root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro", "mem=256M", "quiet",
		"ubd0="+disk, "MODULES="+modules[len(modules)-1], "BUSYBOX="+busybox, "init="+script,
		"con=null", "con0=fd:0,fd:1", "umid=hearth-"+filepath.Base(filepath.Dir(dir)), "uml_dir="+dir)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	// Its processes are one group here, which ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u := &userMode{t: t, stdin: stdin, lines: make(chan string, 1000)}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	go func() {
		defer close(u.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			u.lines <- strings.TrimSuffix(lines.Text(), "\r")
		}
	}()
	if _, err := u.answer(); err != nil {
		t.Skipf("Linux in user mode mounts no vfat: %v", err)
	}
	return u
}

// answer is what a command printed, and an error unless it succeeded.
func (u *userMode) answer() (string, error) {
	var out strings.Builder
	patience := time.After(harness.Patience)
	for {
		select {
		case line, ok := <-u.lines:
			if !ok {
				return "", fmt.Errorf("it ended: %s", &out)
			}
			if before, code, done := strings.Cut(line, "uml: "); done {
				out.WriteString(before)
				if code != "0" {
					return out.String(), fmt.Errorf("exit code %s: %s", code, &out)
				}
				return out.String(), nil
			}
			fmt.Fprintln(&out, line)
		case <-patience:
			return "", fmt.Errorf("no answer: %s", &out)
		}
	}
}

// run runs a command in its shell.
func (u *userMode) run(command string) (string, error) {
	fmt.Fprintln(u.stdin, command)
	return u.answer()
}

// powerCutsInUserMode is powerCuts of a FAT in a Linux in user mode. The changes are made
// one after the other, by the command line.
func powerCutsInUserMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "empty")
	if out, err := exec.Command("sh", "-c", `truncate -s 16M "$0" && mkfs.vfat "$0"`, file).CombinedOutput(); err != nil {
		t.Skipf("this machine makes no FAT: %v: %s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	recorder, err := harness.Record(t, t.TempDir(), content)
	if err != nil {
		t.Skipf("this machine records no disk: %v", err)
	}
	u := startUserMode(t, recorder.Path)
	program, err := filepath.Abs(harness.Binary())
	if err != nil {
		t.Fatal(err)
	}
	hearth := func(line string) error {
		out, err := u.run(program + " " + line + " --socket /tmp/socket 2>&1")
		if err != nil {
			t.Logf("%s: %v %s", line, err, out)
		}
		return err
	}
	u.run(program + " serve --data-dir /tmp/data --socket /tmp/socket --http 127.0.0.1:8080 --https off --stun off" +
		" --server-url http://127.0.0.1:8080 >/tmp/log 2>&1 &")
	harness.Eventually(t, harness.Patience, "the server starts on FAT", func() error {
		out, err := u.run(program + " health --socket /tmp/socket >/dev/null 2>&1 || { cat /tmp/log; false; }")
		return harness.Check(err == nil, "%s", out)
	})
	ready := recorder.Position()
	l := &ledger{now: recorder.Position}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := u.run("wget -q -O - 'http://127.0.0.1:8080/key?v=130' || curl -s 'http://127.0.0.1:8080/key?v=130'")
	must(err)
	for number := range 15 {
		name := fmt.Sprintf("user-%d", number)
		must(l.do("user "+name, "there", func() error { return hearth("users create " + name) }))
		must(l.do("record "+name, "192.168.1.7", func() error { return hearth("dns add " + name + " 192.168.1.7") }))
		text := fmt.Sprintf(`{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]} // %s`, strings.Repeat("x", number*200))
		_, err := u.run("printf %s '" + text + "' >/tmp/policy")
		must(err)
		must(l.do("policy", text, func() error { return hearth("policy set --file /tmp/policy") }))
		if number%3 == 2 {
			must(l.do("user "+name, "", func() error { return hearth("users destroy --force --name " + name) }))
		}
	}
	end := recorder.Position()
	t.Logf("%d changes acknowledged, %d writes of the disk", l.answered.Load(), end)
	look := lookAfterCuts{
		// During the first start a FAT may keep an empty hearth.redb, with which hearth
		// refuses to start. There was nothing to lose yet.
		t: t, f: fat, first: ready, recorder: recorder, l: l, ready: ready, end: end, images: rounds(32),
		key: key,
		// Its disk is one that has no cache: Linux in user mode passes on no syncs.
		cuts: []harness.Cut{"all kept"},
		// The files are taken out of the image.
		wrap: `for word; do
	[ "$before" != --data-dir ] || data=$word
	before=$word
done
mkdir -p -m 700 "$data" && mcopy -s -n -i "$0" ::/* "$data"/ >/dev/null 2>&1; chmod -R go= "$data"
exec "$@"`,
	}
	look.run()
}
