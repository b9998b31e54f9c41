package interop

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/types/key"

	"hearth.test/interop/harness"
)

// rounds is how often a test does something: HEARTH_CRASH_ROUNDS, or the usual number.
func rounds(usual int) int {
	if number, err := strconv.Atoi(os.Getenv("HEARTH_CRASH_ROUNDS")); err == nil {
		return number
	}
	return usual
}

// TestCrashAmongAllChanges kills the server in the middle of changes of all kinds, again
// and again, and compares what it has with what was acknowledged.
func TestCrashAmongAllChanges(t *testing.T) {
	s := start(t, harness.Options{Address: address, Config: "[limits]\nnodes = 10000\n"})
	var clock int
	l := &ledger{now: func() int { return clock }}
	d := newLoad(t, s, l)
	for round := range rounds(6) {
		before := l.answered.Load()
		wait := d.run(8)
		wanted := before + 40 + rand.Int64N(60)
		harness.Eventually(t, harness.Patience, "changes are acknowledged", func() error {
			return harness.Check(l.answered.Load() >= wanted, "%d of %d", l.answered.Load(), wanted)
		})
		s.Kill()
		wait()
		s.Run()
		found, err := d.admin.facts()
		if err != nil {
			t.Fatal(err)
		}
		if wrong := l.wrong(found, never-1); len(wrong) > 0 {
			t.Fatalf("round %d: after kill -9:\n%s", round, strings.Join(wrong, "\n"))
		}
		l.settle(found)
	}
	t.Logf("%d changes acknowledged, none lost", l.answered.Load())
}

// bare is a server that may not start, on a directory.
type bare struct {
	t                *testing.T
	data, http, more string
}

func newBare(t *testing.T) *bare {
	return &bare{t: t, data: filepath.Join(t.TempDir(), "data"), http: net.JoinHostPort(address, harness.FreePort(t, address))}
}

// run starts the program.
func (b *bare) run() (*exec.Cmd, *strings.Builder) {
	https := b.more
	if https == "" {
		https = "off"
	}
	log := &strings.Builder{}
	cmd := harness.Command("serve", "--data-dir", b.data, "--socket", b.data+".socket",
		"--http", b.http, "--https", https, "--stun", "off", "--server-url", "http://"+b.http)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return cmd, log
}

// starts is the key of the server, which is stopped then, or what it says instead of
// starting; and how long it took until it answered.
func (b *bare) starts() (key.MachinePublic, time.Duration, error) {
	began := time.Now()
	cmd, log := b.run()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	for {
		key, err := harness.FetchServerKey("http://"+b.http, 130)
		if took := time.Since(began); err == nil {
			stop()
			return key, took, nil
		} else if took > harness.Patience {
			stop()
			return key, took, fmt.Errorf("no answer: %s", log)
		}
		select {
		case err := <-ended:
			return key, 0, fmt.Errorf("%v: %s", err, log)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestCrashDuringTheFirstStart kills the server at a moment of its very first start,
// many times: it starts the next time, each time.
func TestCrashDuringTheFirstStart(t *testing.T) {
	b := newBare(t)
	_, usual, err := b.starts()
	if err != nil {
		t.Fatal(err)
	}
	count, failed := rounds(60), 0
	var first error
	for round := range count {
		os.RemoveAll(b.data)
		cmd, _ := b.run()
		// The moment of the crash: all over the time that a start takes.
		time.Sleep(usual * time.Duration(round+1) / time.Duration(count))
		cmd.Process.Kill()
		cmd.Wait()
		if _, _, err := b.starts(); err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if failed > 0 {
		t.Errorf("after %d of %d kills during the first start the server does not start: %v", failed, count, first)
	}
}

// TestEmptyDatabaseIsNoFirstStart: a database that has become empty, beside other files
// of the server, does not make it a new server with another key.
func TestEmptyDatabaseIsNoFirstStart(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	b.more = net.JoinHostPort(address, harness.FreePort(t, address))
	key, _, err := b.starts()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(b.data, "hearth.redb"), 0); err != nil {
		t.Fatal(err)
	}
	// It may refuse to start.
	if after, _, err := b.starts(); err == nil && after != key {
		t.Errorf("an empty hearth.redb makes it another server: its key was %v and is %v", key, after)
	}
}

// TestDamagedCertificateIsReplaced: the server starts whatever became of the certificate
// that it made itself, and of its key.
func TestDamagedCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	b.more = net.JoinHostPort(address, harness.FreePort(t, address))
	if _, _, err := b.starts(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(b.data, "tls", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no certificate: %v", err)
	}
	damages := map[string]func([]byte) []byte{
		"empty":   func([]byte) []byte { return nil },
		"cut off": func(text []byte) []byte { return text[:len(text)/2] },
		"zeros":   func(text []byte) []byte { return make([]byte, len(text)) },
		"text":    func([]byte) []byte { return []byte("damaged\n") },
	}
	failed, tried := 0, 0
	var first error
	for _, file := range files {
		good, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for name, damage := range damages {
			tried++
			if err := os.WriteFile(file, damage(good), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.starts(); err != nil {
				failed++
				first = fmt.Errorf("%s: %s: %w", filepath.Base(file), name, err)
				os.WriteFile(file, good, 0o600)
			} else if good, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	if failed > 0 {
		t.Errorf("with a damaged certificate it does not start, in %d of %d ways: %v", failed, tried, first)
	}
}

// TestDiskReadOnlyAtTheStart: all that is needed can be read.
func TestDiskReadOnlyAtTheStart(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	d.s.User("alice")
	d.s.Terminate()
	d.options("ro")
	d.s.Run()
}

// known is a device that is known to a server on a disk of its own.
func known(t *testing.T) (*disk, *harness.Client) {
	t.Helper()
	d := newDisk(t)
	d.s.User("alice")
	client := harness.NewClient(t, d.s.URL, "known", 0)
	client.Join(t, d.s.Key("alice"))
	client.MustMap(t, client.MapRequest()).Until(t, "a map", hasSelf)
	return d, client
}

// comesBack fails unless the device gets a map although its Hostinfo has changed.
func comesBack(t *testing.T, client *harness.Client, when string) {
	t.Helper()
	request := client.MapRequest()
	request.Hostinfo.OSVersion = when
	stream, err := client.Map(harness.Within(t, 20*time.Second), request)
	if err != nil {
		t.Fatalf("a known device that comes back with changed Hostinfo %s gets no map: %v", when, err)
	}
	defer stream.Close()
	stream.Until(t, "a map", hasSelf)
}

// TestDiskFullAndAKnownDevice: the map of a known device needs no disk.
func TestDiskFullAndAKnownDevice(t *testing.T) {
	t.Parallel()
	d, client := known(t)
	defer d.fill()()
	if out, err := d.s.TryCLI("policy", "set", "--file", bigPolicy(t)); err == nil {
		t.Fatalf("the disk is not full: %s", out)
	}
	comesBack(t, client, "while the disk is full")
}

// TestDiskThatHangs: nobody but who changes something waits for it, and /health says so.
func TestDiskThatHangs(t *testing.T) {
	t.Parallel()
	d, client := known(t)
	defer d.freeze()()
	go d.s.TryCLI("users", "create", "waiting")
	harness.Eventually(t, 30*time.Second, "/health turns red while the disk does not respond", func() error {
		code, body := d.health()
		return harness.Check(code == http.StatusServiceUnavailable, "/health: %d %s", code, body)
	})
	comesBack(t, client, "while the disk does not respond")
}

// TestNothingNewWritesNothing: what changes nothing, and what a device reports of itself
// again and again, is not written.
func TestNothingNewWritesNothing(t *testing.T) {
	t.Parallel()
	s := startHTTP(t)
	s.User("alice")
	client := harness.NewClient(t, s.URL, "known", 0)
	client.Join(t, s.Key("alice"))
	client.MustMap(t, client.MapRequest()).Until(t, "a map", hasSelf)
	id := s.MustNode("known").ID
	s.CLI("nodes", "rename", "-i", id, "named")
	written := func() time.Time {
		info, err := os.Stat(filepath.Join(s.DataDir, "hearth.redb"))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	before := written()
	s.CLI("nodes", "rename", "-i", id, "named")
	if after := written(); after != before {
		t.Errorf("a new name that is the old one is written")
	}
	before = written()
	comesBack(t, client, "again")
	if after := written(); after != before {
		t.Errorf("changed Hostinfo is written at once")
	}
}

// TestIdleConnectionsKeepNobodyOut: connections that say nothing, of two addresses, take
// all places there are.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	s := start(t, harness.Options{Address: address, Config: "board = \"memory-128\"\n"})
	for number := range 200 {
		dialer := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+number%2))}, Timeout: time.Second,
		}
		idle, err := dialer.Dial("tcp", s.HTTP)
		if err != nil {
			break
		}
		defer idle.Close()
	}
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(s.URL + "/key?v=130")
	if err != nil {
		t.Fatalf("idle connections of two addresses keep everybody out: %v", err)
	}
	answer.Body.Close()
}
