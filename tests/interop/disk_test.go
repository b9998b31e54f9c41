package interop

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hearth.test/interop/harness"
)

// imageSize is the size of the file system with the data directory: the smallest
// that ext4 has a journal on.
const imageSize = "8M"

// mountScript mounts the image at the data directory that the program is started
// with, with the options in a file beside it, and becomes the program. A loop device
// of a mount that begins as read-only would stay so: the options are set afterwards.
const mountScript = `set -e
image=$0
for word; do
	[ "$before" != --data-dir ] || data=$word
	before=$word
done
mkdir -p "$data"
mount -t ext4 -o loop "$image" "$data"
mount -o "remount,$(cat "$image.options")" "$data"
exec "$@"`

// disk is a real file system with the data directory of a server, in the server's
// mount namespace.
type disk struct {
	t     *testing.T
	s     *harness.Server
	image string
}

// newDisk makes the file system and starts a server on it. Where the machine mounts
// no image, the test is skipped.
func newDisk(t *testing.T) *disk {
	t.Helper()
	if os.Getenv("HEARTH_RUNNER") != "" {
		t.Skip("under an emulator there is no namespace of its own")
	}
	image := filepath.Join(t.TempDir(), "image")
	make := `truncate -s ` + imageSize + ` "$0" && mkfs.ext4 -q -m 0 "$0" && mkdir "$0.try" &&
		unshare --mount -- mount -t ext4 -o loop "$0" "$0.try"`
	if out, err := exec.Command("sh", "-c", make, image).CombinedOutput(); err != nil {
		t.Skipf("this machine mounts no image: %v: %s", err, strings.TrimSpace(string(out)))
	}
	d := &disk{t: t, image: image}
	d.options("rw")
	d.s = start(t, harness.Options{
		Address: address,
		Wrap:    []string{"unshare", "--mount", "--", "sh", "-c", mountScript, image},
	})
	return d
}

// options chooses those of the next mount.
func (d *disk) options(options string) {
	d.t.Helper()
	if err := os.WriteFile(d.image+".options", []byte(options), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// inside runs a command where the server sees its disk.
func (d *disk) inside(words ...string) *exec.Cmd {
	pid := strconv.Itoa(d.s.PID())
	return exec.Command("nsenter", append([]string{"--mount", "--target", pid, "--"}, words...)...)
}

func (d *disk) must(words ...string) {
	d.t.Helper()
	if out, err := d.inside(words...).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %v: %s", words, err, out)
	}
}

// fill takes all room that is left, and returns what gives it back.
func (d *disk) fill() (empty func()) {
	d.t.Helper()
	file := filepath.Join(d.s.DataDir, "filler")
	// It ends when there is no room for more.
	d.inside("dd", "if=/dev/zero", "of="+file, "bs=4k").Run()
	return func() { d.must("rm", file) }
}

// freeze makes everything that is written wait, until thaw. Should the test end
// before, the disk thaws by itself: a process that waits for it could never be ended.
func (d *disk) freeze() (thaw func()) {
	d.t.Helper()
	script := `fsfreeze --freeze "$0" && echo frozen; read -r line; fsfreeze --unfreeze "$0"`
	cmd := d.inside("sh", "-c", script, d.s.DataDir)
	cmd.Stderr = os.Stderr
	// A process group of its own, so that an interrupt does not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done := false
	thaw = func() {
		if !done {
			done = true
			stdin.Close()
			cmd.Wait()
		}
	}
	d.t.Cleanup(thaw)
	room := [16]byte{}
	if n, _ := stdout.Read(room[:]); !strings.HasPrefix(string(room[:n]), "frozen") {
		d.t.Fatal("the file system does not freeze")
	}
	return thaw
}

// health is what /health says.
func (d *disk) health() (int, string) {
	d.t.Helper()
	answer, err := http.Get(d.s.URL + "/health")
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body)
}

// isReadOnly checks that everything that shows the state says that nothing can be
// written, and why.
func (d *disk) isReadOnly(cause, reason string) {
	d.t.Helper()
	harness.Eventually(d.t, harness.Patience, "it is noticed", func() error {
		code, body := d.health()
		return harness.Check(code == http.StatusServiceUnavailable && strings.Contains(body, reason), "/health: %d %s", code, body)
	})
	var status struct {
		Writable bool `json:"databaseIsWritable"`
		Fault    *struct {
			Cause, Reason, Detail, Since, Advice string
		} `json:"databaseFault"`
	}
	d.s.JSON(&status, "status")
	if status.Writable || status.Fault == nil || status.Fault.Cause != cause || status.Fault.Since == "" {
		d.t.Errorf("hearth status: %+v", status)
	}
	if out := d.s.CLI("status"); !strings.Contains(out, "read-only since ") || !strings.Contains(out, reason) {
		d.t.Errorf("hearth status prints\n%s", out)
	}
	// It exits 1, because there is a problem.
	if out, _ := d.s.TryCLI("doctor"); !strings.Contains(out, "The database is read-only: "+reason) {
		d.t.Errorf("hearth doctor prints\n%s", out)
	}
	if out, err := d.s.TryCLI("health"); err == nil || !strings.Contains(err.Error(), reason) {
		d.t.Errorf("hearth health: %v %s", err, out)
	}
	// For service managers: a restart does not repair a disk.
	d.s.CLI("health", "--alive")
	page, err := http.Get(d.s.URL + "/")
	if err != nil {
		d.t.Fatal(err)
	}
	defer page.Body.Close()
	if body, _ := io.ReadAll(page.Body); !strings.Contains(string(body), reason) {
		d.t.Errorf("the page says\n%s", body)
	}
}

func (d *disk) isWritable() {
	d.t.Helper()
	harness.Eventually(d.t, harness.Patience, "the disk can be written again", func() error {
		code, body := d.health()
		return harness.Check(code == http.StatusOK, "/health: %d %s", code, body)
	})
}

// refuses checks that a change is refused with the reason.
func (d *disk) refuses(reason string, words ...string) {
	d.t.Helper()
	out, err := d.s.TryCLI(words...)
	if err == nil || !strings.Contains(err.Error(), reason) {
		d.t.Errorf("hearth %s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

// bigPolicy is a policy that needs new room on the disk.
func bigPolicy(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.hujson")
	text := "// " + strings.Repeat("long ", 30_000) + "\n" + `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestDevicesNeedNoDisk: while nothing can be written, whatever the reason, devices
// that are known come back with what has changed of them, get their maps and reach
// each other, new ones are refused, and all is well again once the disk is.
func TestDevicesNeedNoDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	s := d.s
	s.User("alice")
	key := s.Key("alice", "--reusable")
	alpha := join(t, s, "alpha", key).echo()
	dir := filepath.Join(t.TempDir(), "beta")
	beta := newDevice(t, s, dir, "beta", key).up().echo()
	alpha.sees("beta")
	// comesBack starts beta again under another name, which its Hostinfo reports.
	comesBack := func(t *testing.T, name string) {
		t.Helper()
		beta.Close()
		beta = newDevice(t, s, dir, name, "").up().echo()
		alpha.sees(name)
		beta.sees("alpha")
		address, _ := beta.addresses()
		alpha.mustExchange(address.String(), 10_000)
	}
	// joins checks that a device that was refused joins by itself now.
	waits := func(t *testing.T, name string) (joins func()) {
		t.Helper()
		newcomer := newDevice(t, s, "", name, key).begin()
		harness.Eventually(t, harness.Patience, name+" is refused", func() error {
			return harness.Check(newcomer.log.contains("nothing was changed") || newcomer.log.contains("503"), "%s", newcomer.log.tail())
		})
		if s.NodeNamed(name) != nil {
			t.Errorf("%s is listed", name)
		}
		return func() { alpha.sees(name) }
	}
	step(t, "a disk that is full", func(t *testing.T) {
		empty := d.fill()
		d.refuses("no space left", "policy", "set", "--file", bigPolicy(t))
		d.isReadOnly("full", "no space left on the file system")
		comesBack(t, "beta-full")
		joins := waits(t, "gamma")
		empty()
		d.isWritable()
		joins()
	})
	step(t, "a disk that does not respond", func(t *testing.T) {
		thaw := d.freeze()
		d.refuses("does not respond", "users", "create", "doubtful")
		d.isReadOnly("no-response", "the disk does not respond")
		comesBack(t, "beta-silent")
		joins := waits(t, "delta")
		thaw()
		d.isWritable()
		joins()
		s.Kill()
		s.Run()
		if out := s.CLI("users", "list"); strings.Contains(out, "doubtful") {
			t.Errorf("a user that was refused is there after a restart:\n%s", out)
		}
		comesBack(t, "beta-again")
	})
	step(t, "a start on a disk that is read-only", func(t *testing.T) {
		s.Terminate()
		d.options("ro")
		s.Run()
		d.isReadOnly("read-only", "the file system is read-only")
		d.refuses("read-only", "users", "create", "bob")
		comesBack(t, "beta-read-only")
		joins := waits(t, "epsilon")
		d.must("mount", "-o", "remount,rw", s.DataDir)
		d.isWritable()
		joins()
		s.CLI("users", "create", "bob")
	})
	step(t, "a disk that becomes read-only", func(t *testing.T) {
		// As the kernel does after an error.
		d.must("mount", "-o", "remount,abort", s.DataDir)
		if out, err := s.TryCLI("users", "create", "carol"); err == nil {
			t.Errorf("created: %s", out)
		}
		harness.Eventually(t, harness.Patience, "it is noticed", func() error {
			code, body := d.health()
			return harness.Check(code == http.StatusServiceUnavailable, "/health: %d %s", code, body)
		})
		comesBack(t, "beta-aborted")
	})
	s.Alive()
	if count := len(s.Nodes()); count != 5 {
		t.Errorf("%d nodes", count)
	}
}
