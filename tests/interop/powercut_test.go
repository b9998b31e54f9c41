package interop

import (
	"fmt"
	"math/rand/v2"
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

func TestCrashOnFAT(t *testing.T) { powerCuts(t, fat) }

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
	serverKey, err := harness.FetchServerKey(s.URL, 130)
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

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	// The moments: right after acknowledgments, during the first start, and anywhere.
	var moments []int
	for _, c := range l.changes {
		if c.end != never {
			moments = append(moments, c.end)
		}
	}
	images := rounds(32)
	for number := range images {
		position := chance.IntN(end + 1)
		switch number % 4 {
		case 0:
			position = chance.IntN(ready + 1)
		case 1, 2:
			position = moments[chance.IntN(len(moments))]
		}
		cut := harness.Cuts[chance.IntN(len(harness.Cuts))]
		where := fmt.Sprintf("power cut after %d of %d events (%d: ready), %s, seed %d", position, end, ready, cut, seed)
		file := filepath.Join(t.TempDir(), "after")
		if err := os.WriteFile(file, recorder.AfterCut(position, cut, chance), 0o600); err != nil {
			t.Fatal(err)
		}
		// It exits with 1 if it repaired something.
		out, err := exec.Command("sh", "-c", f.check+` "$0"`, file).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() > 1) {
			t.Fatalf("%s: %s: %v: %s", where, f.check, err, out)
		}
		after := start(t, harness.Options{
			Address: address, Config: "[limits]\nnodes = 10000\n",
			Wrap: []string{"unshare", "--mount", "--", "sh", "-c", f.mountAndRun(), file},
		})
		found, err := newAdmin(after).facts()
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if wrong := l.wrong(found, position); len(wrong) > 0 {
			t.Fatalf("%s:\n%s", where, strings.Join(wrong, "\n"))
		}
		key, err := harness.FetchServerKey(after.URL, 130)
		if position >= ready && (err != nil || key != serverKey) {
			t.Fatalf("%s: the key of the server was %v and is %v, %v", where, serverKey, key, err)
		}
		// It can be written.
		after.User("after-the-cut")
		after.Kill()
		os.Remove(file)
	}
	t.Logf("%d disks after power cuts, none wrong", images)
}
