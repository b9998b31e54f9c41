package interop

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hearth.test/interop/harness"
)

// filesystem is a kind of file system on an image.
type filesystem struct {
	name, size, make, mount, check string
}

var (
	// The smallest that ext4 has a journal on.
	ext4 = filesystem{"ext4", "8M", "mkfs.ext4 -q -m 0", "mount -t ext4 -o loop", "e2fsck -p"}
	// A FAT has no journal: what is found is repaired as at each start of most systems.
	fat = filesystem{"vfat", "16M", "mkfs.vfat", "mount -t vfat -o loop,umask=0077,flush", "fsck.vfat -a"}
)

// mountAndRun mounts an image at the data directory and becomes the program.
func (f filesystem) mountAndRun() string {
	return `set -e
image=$0
for word; do
	[ "$before" != --data-dir ] || data=$word
	before=$word
done
mkdir -p "$data"
` + f.mount + ` "$image" "$data"
exec "$@"`
}

// image is an empty file system of this kind. Where the machine has none, the test is
// skipped.
func (f filesystem) image(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	script := `truncate -s ` + f.size + ` "$0" && ` + f.make + ` "$0" >/dev/null && mkdir "$0.try" &&
		unshare --mount -- ` + f.mount + ` "$0" "$0.try"`
	if out, err := exec.Command("sh", "-c", script, file).CombinedOutput(); err != nil {
		t.Skipf("this machine mounts no %s: %v: %s", f.name, err, strings.TrimSpace(string(out)))
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestCrashOnExt4 and TestCrashOnFAT record what the kernel asks of the disk under a real
// file system while everything is changed, cut the power at moments of it, repair the file
// system as at a start of the machine, and start the program on it.
func TestCrashOnExt4(t *testing.T) { powerCuts(t, ext4) }

func TestCrashOnFAT(t *testing.T) {
	if kernel, _ := os.ReadFile("/proc/filesystems"); strings.Contains(string(kernel), "\tvfat\n") {
		powerCuts(t, fat)
	} else {
		powerCutsInUserMode(t)
	}
}

func powerCuts(t *testing.T, f filesystem) {
	if os.Getenv("HEARTH_RUNNER") != "" {
		t.Skip("under an emulator there is no namespace of its own")
	}
	content := f.image(t)
	recorder, err := harness.Record(t, t.TempDir(), content)
	if err != nil {
		t.Skipf("this machine records no disk: %v", err)
	}
	s := start(t, harness.Options{
		Address: address, Config: "[limits]\nnodes = 10000\n",
		Wrap: []string{"unshare", "--mount", "--", "sh", "-c", f.mountAndRun(), recorder.Path},
	})
	ready := recorder.Position()
	key, err := keyPage(s)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{now: recorder.Position}
	d := newLoad(t, s, l)
	wait := d.run(3)
	wanted := int64(120)
	harness.Eventually(t, harness.Patience, "changes are acknowledged", func() error {
		return harness.Check(l.answered.Load() >= wanted, "%d of %d", l.answered.Load(), wanted)
	})
	s.Kill()
	wait()
	end := recorder.Position()
	t.Logf("%d changes acknowledged, %d writes and %d syncs of the disk", l.answered.Load(), end, recorder.Syncs())

	look := lookAfterCuts{
		t: t, f: f, recorder: recorder, l: l, ready: ready, end: end, images: rounds(32),
		cuts: harness.Cuts, key: key, wrap: f.mountAndRun(),
	}
	look.run()
}

func keyPage(s *harness.Server) (string, error) {
	answer, err := http.Get(s.URL + "/key?v=130")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// lookAfterCuts starts the program on disks after power cuts, and compares what it has
// with a ledger.
type lookAfterCuts struct {
	t        *testing.T
	f        filesystem
	recorder *harness.Recorder
	l        *ledger
	// first is the first moment that is looked at, ready that of the end of the first start.
	first, ready, end int
	images            int
	// cuts are the kinds of power cuts that make sense.
	cuts []harness.Cut
	// key is the key of the server.
	key string
	// wrap is a script that puts what is on an image at the data directory.
	wrap string
}

func (a *lookAfterCuts) run() {
	t, f := a.t, a.f
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	// The moments: right after acknowledgments, during the first start, and anywhere.
	var moments []int
	for _, c := range a.l.changes {
		if c.end != never {
			moments = append(moments, c.end)
		}
	}
	for number := range a.images {
		position := a.first + chance.IntN(a.end-a.first+1)
		switch kind := number % 4; {
		case kind == 0 && a.first < a.ready:
			position = a.first + chance.IntN(a.ready-a.first+1)
		case kind < 3:
			position = moments[chance.IntN(len(moments))]
		}
		cut := a.cuts[chance.IntN(len(a.cuts))]
		where := fmt.Sprintf("power cut after %d of %d events (%d: ready), %s, seed %d", position, a.end, a.ready, cut, seed)
		file := filepath.Join(t.TempDir(), "after")
		if err := os.WriteFile(file, a.recorder.AfterCut(position, cut, chance), 0o600); err != nil {
			t.Fatal(err)
		}
		// It exits with 1 if it repaired something.
		out, err := exec.Command("sh", "-c", f.check+` "$0"`, file).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() > 1) {
			t.Fatalf("%s: %s: %v: %s", where, f.check, err, out)
		}
		after := start(t, harness.Options{
			Address: address, Config: "[limits]\nnodes = 10000\n",
			Wrap: []string{"unshare", "--mount", "--", "sh", "-c", a.wrap, file},
		})
		found, err := newAdmin(after).facts()
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if wrong := a.l.wrong(found, position); len(wrong) > 0 {
			t.Fatalf("%s:\n%s", where, strings.Join(wrong, "\n"))
		}
		if key, err := keyPage(after); position >= a.ready && (err != nil || key != a.key) {
			t.Fatalf("%s: the keys of the server were %s and are %s, %v", where, a.key, key, err)
		}
		// It can be written.
		after.User("after-the-cut")
		after.Kill()
		os.Remove(file)
	}
	t.Logf("%d disks after power cuts, none wrong", a.images)
}
