package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"hearth.test/interop/harness"
)

const (
	// wanClientEnv says, in the re-executed test program, that it is a device that
	// is away, and how it joins.
	wanClientEnv = "HEARTH_TEST_WAN_CLIENT"
	// wanName is the name of the server. DNS is a file that the test leaves alone:
	// it stays at the first address, as DNS does for minutes after a change.
	wanName = "home.example"
	// oldWAN and newWAN are the addresses of the server outside, and the ends of
	// the provider's wire with the same networks.
	oldWAN, oldPeer = "203.0.113.5", "203.0.113.254"
	newWAN, newPeer = "198.51.100.7", "198.51.100.254"
)

// sawMap is what the device that is away prints for each DERP map and each line of
// its log that is about the way to the server.
type sawMap struct {
	At   int64  `json:"at"`
	IPv4 string `json:"ipv4"`
	Log  string `json:"log"`
}

// runWANClient is the device that is away: an official client in a network namespace
// of its own.
func runWANClient() int {
	var join struct{ URL, Key, Dir string }
	if err := json.Unmarshal([]byte(os.Getenv(wanClientEnv)), &join); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(saw sawMap) {
		mu.Lock()
		defer mu.Unlock()
		saw.At = time.Now().UnixNano()
		out.Encode(saw)
	}
	s := &tsnet.Server{Dir: join.Dir, ControlURL: join.URL, AuthKey: join.Key, Hostname: "away"}
	s.UserLogf = logger.Discard
	s.Logf = func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if strings.Contains(line, "dial plan") || strings.Contains(line, "derp-region-redefined") ||
			os.Getenv("HEARTH_TEST_VERBOSE") != "" {
			say(sawMap{Log: line})
		}
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if _, err := s.Up(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "the device that is away does not come up:", err)
		return 1
	}
	local, err := s.LocalClient()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		last := ""
		for {
			derpMap, err := local.CurrentDERPMap(context.Background())
			if err == nil && derpMap != nil && derpMap.Regions[900] != nil {
				if now := derpMap.Regions[900].Nodes[0].IPv4; now != last {
					last = now
					say(sawMap{IPv4: now})
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	// Whoever started it ends it by closing its standard input.
	io.Copy(io.Discard, os.Stdin)
	return 0
}

// ip runs a command of iproute2, in the namespace of a process unless that is 0.
func ip(t *testing.T, pid int, args ...string) {
	t.Helper()
	words := append([]string{"ip"}, args...)
	if pid != 0 {
		words = append([]string{"nsenter", "-t", fmt.Sprint(pid), "-n"}, words...)
	}
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
}

// wire joins the namespace of the test, as the home, with that of a process, as the
// provider and the rest of the world.
func wire(t *testing.T, pid int) {
	t.Helper()
	ip(t, 0, "link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", fmt.Sprint(pid))
	t.Cleanup(func() { exec.Command("ip", "link", "del", "wan0").Run() })
	ip(t, pid, "link", "set", "lo", "up")
	ip(t, pid, "addr", "add", oldPeer+"/24", "dev", "wan1")
	ip(t, pid, "addr", "add", newPeer+"/24", "dev", "wan1")
	ip(t, pid, "link", "set", "wan1", "up")
	ip(t, 0, "addr", "add", oldWAN+"/24", "dev", "wan0")
	ip(t, 0, "link", "set", "wan0", "up")
	ip(t, 0, "route", "add", "default", "via", oldPeer)
	// A client takes a network without a way out for none.
	ip(t, pid, "route", "add", "default", "via", oldWAN)
	// Nobody outside gets to an address at home.
	ip(t, pid, "route", "add", "unreachable", "192.168.77.0/24")
}

// provider starts a process that does nothing, in a network namespace of its own.
func provider(t *testing.T) int {
	t.Helper()
	return startUnshared(t, exec.Command("unshare", "--net", "--", "sleep", "600"))
}

// startUnshared starts a command of unshare, and returns its process once that is in a
// network namespace of its own.
func startUnshared(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	own, _ := os.Readlink("/proc/self/ns/net")
	harness.Eventually(t, harness.Patience, "a namespace of its own", func() error {
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
		if err != nil {
			return err
		}
		return harness.Check(its != own, "it is in %s", its)
	})
	return cmd.Process.Pid
}

// changeAddress gives the home its new address outside and takes the old one only
// when told to, and returns when the new one is there.
func changeAddress(t *testing.T) (changed time.Time, removeOld func()) {
	t.Helper()
	ip(t, 0, "addr", "add", newWAN+"/24", "dev", "wan0")
	ip(t, 0, "route", "replace", "default", "via", newPeer)
	return time.Now(), func() { ip(t, 0, "addr", "del", oldWAN+"/24", "dev", "wan0") }
}

func needNamespace(t *testing.T) {
	t.Helper()
	if address != harness.LANAddress {
		t.Skip("without a network namespace no address can change")
	}
	if os.Getenv("HEARTH_RUNNER") != "" {
		t.Skip("the emulator has no netlink")
	}
}

// hostsFile makes what stands for DNS, and a command that starts a program which
// sees it.
func hostsFile(t *testing.T) (wrap []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hosts")
	text := "127.0.0.1 localhost\n" + oldWAN + " " + wanName + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	script := `mount --bind "$0" /etc/hosts && exec "$@"`
	return []string{"unshare", "--mount", "--", "sh", "-c", script, file}
}

// wanReport is the part of `hearth wan -o json` that the tests use.
type wanReport struct {
	Changed     bool     `json:"changed"`
	Interface   string   `json:"interface"`
	OutsideIPv4 string   `json:"outsideIpv4"`
	Publishing  bool     `json:"publishing"`
	Published   []string `json:"published"`
	NoticedBy   string   `json:"noticedBy"`
}

// startAway starts the device that is away, in a network namespace of its own. It
// begins when it is told how to join, by a line on its standard input. Returns the
// process, and its input and output.
func startAway(t *testing.T, wrap []string) (int, io.Writer, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `read -r HEARTH_TEST_WAN_CLIENT; export HEARTH_TEST_WAN_CLIENT; exec "$0"`
	words := append(append([]string{"unshare", "--net", "--"}, wrap...), "sh", "-c", script, self)
	cmd := exec.Command(words[0], words[1:]...)
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	return startUnshared(t, cmd), stdin, stdout
}

// TestWANAddressChanges: a device that is away and one at home hear of a new address
// outside within a second, and the one that is away comes back by it although DNS
// still says the old one.
func TestWANAddressChanges(t *testing.T) {
	needNamespace(t)
	wrap := hostsFile(t)
	// The device that is away is started first: its namespace is the other end of the
	// wire.
	away, stdin, stdout := startAway(t, wrap)
	wire(t, away)

	s := start(t, harness.Options{Address: "0.0.0.0", Host: wanName, Authority: authority, Wrap: wrap})
	s.User("alice")
	var report wanReport
	harness.Eventually(t, harness.Patience, "the name leads here", func() error {
		s.JSON(&report, "wan")
		return harness.Check(report.Publishing, "%+v", report)
	})
	if report.OutsideIPv4 != oldWAN || report.Interface != "wan0" || report.NoticedBy != "netlink" {
		t.Fatalf("hearth wan: %+v", report)
	}
	s.JSON(&report, "wan", "refresh")
	if !report.Changed {
		t.Errorf("the first refresh says that nothing changed")
	}

	join, _ := json.Marshal(map[string]string{
		"URL": s.URL, "Key": s.Key("alice"), "Dir": filepath.Join(t.TempDir(), "away"),
	})
	fmt.Fprintf(stdin, "%s\n", join)
	saw := watch(stdout)
	saw.until(t, "the first map", func(saw sawMap) bool { return saw.IPv4 == oldWAN })
	harness.Eventually(t, harness.Patience, "the device is online", func() error {
		return harness.Check(s.MustNode("away").Online, "it is not")
	})

	_, httpPort, _ := strings.Cut(s.HTTP, ":")
	home := harness.NewClient(t, "http://"+harness.LANAddress+":"+httpPort, "at-home", 0)
	home.Join(t, s.Key("alice"))
	stream := home.MustMap(t, home.MapRequest())
	first, err := stream.Next()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("before: dial plan %v, relay %v", candidates(first.ControlDialPlan), first.DERPMap.Regions[900].Nodes[0].IPv4)

	changed, removeOld := changeAddress(t)
	var plan *tailcfg.ControlDialPlan
	var derpMap *tailcfg.DERPMap
	stream.Until(t, "the new address", func(message *tailcfg.MapResponse) bool {
		if message.ControlDialPlan != nil {
			plan = message.ControlDialPlan
		}
		if message.DERPMap != nil {
			derpMap = message.DERPMap
		}
		return plan != nil && derpMap != nil
	})
	took := stream.Arrived.Sub(changed)
	t.Logf("the device at home was told after %v: dial plan %v, relay %v", took.Round(time.Millisecond),
		candidates(plan), derpMap.Regions[900].Nodes[0].IPv4)
	if got := strings.Join(candidates(plan), " "); got != harness.LANAddress+" "+newWAN {
		t.Errorf("the dial plan is %s", got)
	}
	if got := derpMap.Regions[900].Nodes[0]; got.IPv4 != newWAN || got.HostName != wanName {
		t.Errorf("the relay is %+v", got)
	}
	if took > time.Second {
		t.Errorf("it took %v", took)
	}
	moved := saw.until(t, "the map with the new address", func(saw sawMap) bool { return saw.IPv4 == newWAN })
	took = time.Unix(0, moved.At).Sub(changed)
	t.Logf("the device that is away had the new DERP map after %v", took.Round(time.Millisecond))
	if took > time.Second {
		t.Errorf("it took %v", took)
	}

	// Now the old address is gone, and with it each connection to it. DNS still says it.
	removeOld()
	removed := time.Now()
	// The kernel of the device does what that of a phone does that changes its network. Left alone
	// the client notices only after two minutes of silence (watchdogTimeout in its direct.go), for
	// which until would not wait.
	kill := exec.Command("nsenter", "-t", fmt.Sprint(away), "-n", "ss", "-K", "dst", oldWAN)
	if out, err := kill.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, out)
	}
	back := saw.until(t, "a connection by the dial plan", func(saw sawMap) bool {
		return strings.Contains(saw.Log, "succeeded dialing") && strings.Contains(saw.Log, newWAN)
	})
	// A question goes over the device's control connection.
	if answer := s.CLI("nodes", "c2n", "away", "echo", "-X", "POST", "-d", "hello"); answer != "hello\n" {
		t.Errorf("echo came back as %q", answer)
	}
	t.Logf("the device that is away was back by the dial plan after %v, with DNS at the old address",
		time.Unix(0, back.At).Sub(removed).Round(time.Millisecond))

	s.JSON(&report, "wan", "refresh")
	if !report.Changed || report.OutsideIPv4 != newWAN {
		t.Errorf("the refresh after the change: %+v", report)
	}
	if _, err := s.TryCLI("wan", "refresh", "--changed"); err == nil {
		t.Errorf("the second refresh says again that something changed")
	}
	var doctor struct {
		Findings []struct{ ID, Level, Title string }
	}
	s.JSON(&doctor, "doctor")
	found := false
	for _, finding := range doctor.Findings {
		found = found || finding.ID == "url.old-address"
	}
	if !found {
		t.Errorf("the doctor does not say that DNS is behind: %+v", doctor)
	}
}

// TestWANAddressAtHome: without a name and an authority the relay's own certificate is
// known by its hash, and so survives the change; an address that is gone for a
// moment changes nothing.
func TestWANAddressAtHome(t *testing.T) {
	needNamespace(t)
	wire(t, provider(t))
	s := start(t, harness.Options{Address: "0.0.0.0", Host: harness.LANAddress})
	s.User("alice")
	c := harness.NewClient(t, s.URL, "at-home", 0)
	c.Join(t, s.Key("alice"))
	stream := c.MustMap(t, c.MapRequest())
	first, err := stream.Next()
	if err != nil {
		t.Fatalf("%v", err)
	}
	nodes := first.DERPMap.Regions[900].Nodes
	if len(nodes) != 2 || nodes[0].IPv4 != harness.LANAddress || nodes[1].IPv4 != oldWAN {
		t.Fatalf("the relay is %+v", nodes)
	}

	// A moment without the address, and the same one again: nothing is said. The new
	// address is the first news.
	ip(t, 0, "addr", "del", oldWAN+"/24", "dev", "wan0")
	var report wanReport
	s.JSON(&report, "wan", "refresh")
	if report.OutsideIPv4 != oldWAN {
		t.Errorf("an address that is gone for a moment is not told any more: %+v", report)
	}
	ip(t, 0, "addr", "add", oldWAN+"/24", "dev", "wan0")
	ip(t, 0, "route", "add", "default", "via", oldPeer)
	s.JSON(&report, "wan", "refresh")

	changed, removeOld := changeAddress(t)
	removeOld()
	message := stream.Until(t, "the new address", func(message *tailcfg.MapResponse) bool {
		return message.DERPMap != nil || message.ControlDialPlan != nil
	})
	t.Logf("told after %v", stream.Arrived.Sub(changed).Round(time.Millisecond))
	derpMap := message.DERPMap
	if derpMap == nil {
		derpMap = stream.Until(t, "the map", func(message *tailcfg.MapResponse) bool { return message.DERPMap != nil }).DERPMap
	}
	node := derpMap.Regions[900].Nodes[1]
	if node.IPv4 != newWAN || node.CertName != nodes[1].CertName {
		t.Fatalf("the relay is %+v", node)
	}
	region := &tailcfg.DERPRegion{RegionID: 900, Nodes: []*tailcfg.DERPNode{node}}
	mustRelay(t, region, c.Node)
	t.Logf("the relay at %s showed the certificate with the same hash, %s", node.IPv4, node.CertName)
}

func candidates(plan *tailcfg.ControlDialPlan) (ips []string) {
	if plan != nil {
		for _, candidate := range plan.Candidates {
			ips = append(ips, candidate.IP.String())
		}
	}
	return ips
}

// sightings are the lines of the device that is away.
type sightings struct{ lines chan sawMap }

func watch(from io.Reader) sightings {
	lines := make(chan sawMap, 1024)
	go func() {
		defer close(lines)
		decoder := json.NewDecoder(from)
		for {
			var saw sawMap
			if decoder.Decode(&saw) != nil {
				return
			}
			lines <- saw
		}
	}()
	return sightings{lines}
}

// until reads lines until want accepts one.
func (s sightings) until(t *testing.T, what string, want func(sawMap) bool) sawMap {
	t.Helper()
	deadline := time.After(harness.Patience)
	for {
		select {
		case saw, open := <-s.lines:
			if !open {
				t.Fatalf("waiting for %s: the device that is away ended", what)
			}
			if saw.Log != "" {
				t.Logf("away: %s", strings.TrimSpace(saw.Log))
			}
			if want(saw) {
				return saw
			}
		case <-deadline:
			t.Fatalf("%s: not within %v", what, harness.Patience)
		}
	}
}

// TestStopsWhileDNSIsSilent: hearth asks DNS where its name leads. A server of names that
// never answers, as with the internet gone, does not keep it from stopping in time.
func TestStopsWhileDNSIsSilent(t *testing.T) {
	needNamespace(t)
	silent, err := net.ListenPacket("udp", "127.0.0.99:53")
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer silent.Close()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.99\n"), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	script := `mount --bind "$0" /etc/resolv.conf && exec "$@"`
	wrap := []string{"unshare", "--mount", "--", "sh", "-c", script, file}
	s := start(t, harness.Options{Address: address, Host: "silent.example", Wrap: wrap})
	// The question is out when it arrives here.
	silent.SetReadDeadline(time.Now().Add(harness.Patience))
	if _, _, err := silent.ReadFrom(make([]byte, 512)); err != nil {
		t.Fatalf("hearth asks nothing: %v", err)
	}
	began := time.Now()
	s.Terminate()
	t.Logf("stopped after %v", time.Since(began).Round(time.Millisecond))
}
