package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hearth.test/interop/harness"
)

const (
	// The network between the home and the router in front, and a public address for
	// that router: miniupnpd knows the documentation ranges for what they are.
	frontHome, frontRouter     = "192.168.178.20", "192.168.178.1"
	routerOutside, elsewhereIP = "45.79.1.9", "45.79.1.200"
)

// frontRules are the chains that miniupnpd fills.
const frontRules = `table inet filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan0" accept
    jump miniupnpd
  }
  chain miniupnpd {
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump prerouting_miniupnpd
  }
  chain prerouting_miniupnpd {
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname "ext0" masquerade
    jump postrouting_miniupnpd
  }
  chain postrouting_miniupnpd {
  }
}
`

// withoutPCP makes a router that knows NAT-PMP only: what begins with the version of
// PCP gets no answer.
const withoutPCP = `table inet without_pcp {
  chain input {
    type filter hook input priority 0; policy accept;
    udp dport 5351 @th,64,8 2 drop
  }
}
`

// inside runs a command in the network namespace of a process.
func inside(pid int, stdin string, args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(pid), "-n", "--"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustInside(t *testing.T, pid int, stdin string, args ...string) string {
	t.Helper()
	out, err := inside(pid, stdin, args...)
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// routerInFront starts a router with miniupnpd between the home and a machine
// elsewhere, and returns both by their processes.
func routerInFront(t *testing.T, options, rules string) (router, elsewhere int) {
	t.Helper()
	router, elsewhere = provider(t), provider(t)
	ip(t, 0, "link", "add", "wan0", "type", "veth", "peer", "name", "lan0", "netns", fmt.Sprint(router))
	t.Cleanup(func() { exec.Command("ip", "link", "del", "wan0").Run() })
	ip(t, router, "link", "set", "lo", "up")
	ip(t, router, "addr", "add", frontRouter+"/24", "dev", "lan0")
	ip(t, router, "link", "set", "lan0", "up")
	ip(t, router, "link", "add", "ext0", "type", "veth", "peer", "name", "ext1", "netns", fmt.Sprint(elsewhere))
	ip(t, router, "addr", "add", routerOutside+"/24", "dev", "ext0")
	ip(t, router, "link", "set", "ext0", "up")
	ip(t, elsewhere, "addr", "add", elsewhereIP+"/24", "dev", "ext1")
	ip(t, elsewhere, "link", "set", "ext1", "up")
	ip(t, 0, "addr", "add", frontHome+"/24", "dev", "wan0")
	ip(t, 0, "link", "set", "wan0", "up")
	ip(t, 0, "route", "add", "default", "via", frontRouter)
	if out, err := inside(router, frontRules+rules, "nft", "-f", "-"); err != nil {
		t.Skipf("this kernel has no address translation by nftables: %s", out)
	}
	mustInside(t, router, "", "sysctl", "-qw", "net.ipv4.ip_forward=1")

	dir := t.TempDir()
	config := "ext_ifname=ext0\nlistening_ip=lan0\nsecure_mode=yes\nuuid=12345678-1234-1234-1234-123456789abc\n" +
		"lease_file=" + filepath.Join(dir, "leases") + "\n" + options +
		"allow 1024-65535 192.168.178.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
	file := filepath.Join(dir, "miniupnpd.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	daemon := exec.Command("nsenter", "-t", fmt.Sprint(router), "-n", "--",
		"miniupnpd", "-d", "-f", file, "-P", filepath.Join(dir, "pid"))
	var log strings.Builder
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		daemon.Process.Signal(syscall.SIGTERM)
		daemon.Wait()
		if t.Failed() {
			t.Logf("miniupnpd says:\n%s", &log)
		}
	})
	// hearth asks at its start, and then not for two minutes.
	harness.Eventually(t, harness.Patience, "miniupnpd listens", func() error {
		sockets, err := inside(router, "", "ss", "-Hlun")
		listens := strings.Contains(sockets, ":5351") || strings.Contains(sockets, ":1900")
		return harness.Check(err == nil && listens, "%s, %v", sockets, err)
	})
	return router, elsewhere
}

// stunElsewhere starts a STUN server on the machine elsewhere, and returns its address.
func stunElsewhere(t *testing.T, elsewhere int) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "hearth.toml")
	if err := os.WriteFile(file, []byte("[derp]\nstun_only = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ip(t, elsewhere, "link", "set", "lo", "up")
	server := harness.Command("derp", "--config", file, "--data-dir", filepath.Join(dir, "data"),
		"--socket", filepath.Join(dir, "socket"), "--http", "127.0.0.1:8080", "--https", "off", "--stun", elsewhereIP+":3478")
	server.Args = append([]string{"nsenter", "-t", fmt.Sprint(elsewhere), "-n", "--", server.Path}, server.Args[1:]...)
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatal(err)
	}
	server.Path = nsenter
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		server.Wait()
	})
	harness.Eventually(t, harness.Patience, "the STUN server listens", func() error {
		sockets, err := inside(elsewhere, "", "ss", "-Hlun")
		return harness.Check(err == nil && strings.Contains(sockets, ":3478"), "%s, %v", sockets, err)
	})
	return elsewhereIP + ":3478"
}

// TestPortMapping: behind another router hearth has its ports forwarded, learns the
// address outside, tells clients of it, and takes all back when it stops. The router
// is miniupnpd, which speaks all three protocols. What it says by UPnP counts once a
// STUN server confirms it.
func TestPortMapping(t *testing.T) {
	needNamespace(t)
	for _, tool := range []string{"miniupnpd", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	for _, test := range []struct{ protocol, options, rules string }{
		{"pcp", "enable_natpmp=yes\nenable_upnp=no\n", ""},
		{"nat-pmp", "enable_natpmp=yes\nenable_upnp=no\n", withoutPCP},
		{"upnp", "enable_natpmp=no\nenable_upnp=yes\n", ""},
	} {
		t.Run(test.protocol, func(t *testing.T) {
			router, elsewhere := routerInFront(t, test.options, test.rules)
			config := "[wan]\nport_mapping = true\n"
			if test.protocol == "upnp" {
				config += fmt.Sprintf("stun_servers = [%q]\n", stunElsewhere(t, elsewhere))
			}
			s := start(t, harness.Options{
				Address: "0.0.0.0", Host: harness.LANAddress, Config: config,
			})
			var report struct {
				Kind        string
				OutsideIPv4 string
				OutsideFrom string
				Published   []string
				PortMapping struct {
					Protocol string
					Gateway  string
					Fault    string
					Ports    []struct {
						Protocol           string
						Internal, External int
						Mapped             bool
					}
				}
			}
			// Long enough for a second try of hearth.
			harness.Eventually(t, 4*harness.Patience, "the ports are forwarded", func() error {
				s.JSON(&report, "wan")
				isMapped := report.OutsideIPv4 == routerOutside && report.PortMapping.Protocol != ""
				return harness.Check(isMapped, "%+v", report)
			})
			t.Logf("%+v", report)
			if test.protocol == "upnp" && report.OutsideFrom == "stun" {
				// The STUN server may answer first.
				report.OutsideFrom = "port-mapping"
			}
			mapping := report.PortMapping
			if report.Kind != "private" || report.OutsideFrom != "port-mapping" || mapping.Protocol != test.protocol ||
				mapping.Gateway != frontRouter || mapping.Fault != "" || len(mapping.Ports) != 2 {
				t.Errorf("the report is %+v", report)
			}
			if got := strings.Join(report.Published, " "); got != harness.LANAddress+" "+routerOutside {
				t.Errorf("clients are told %s", got)
			}
			_, httpPort, _ := net.SplitHostPort(s.HTTP)
			for _, port := range mapping.Ports {
				if fmt.Sprint(port.Internal) == httpPort {
					t.Errorf("plain HTTP is open to the internet: %+v", port)
				}
				if !port.Mapped || port.Internal != port.External {
					t.Errorf("a port is %+v", port)
				}
			}

			// Somebody elsewhere comes in, and gets an alert of TLS for what is none.
			_, port, _ := net.SplitHostPort(s.HTTPS)
			request := "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
			script := fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; cat >&3; cat <&3", routerOutside, port)
			answer := mustInside(t, elsewhere, request, "timeout", "10", "bash", "-c", script)
			if !strings.HasPrefix(answer, "\x15\x03") {
				t.Errorf("who is elsewhere gets %q", answer)
			}
			out, err := s.TryCLI("doctor")
			t.Logf("hearth doctor (%v):\n%s", err, out)
			if err != nil || !strings.Contains(out, "forwards the ports") {
				t.Errorf("the doctor: %v", err)
			}

			// Whoever stops leaves nothing behind.
			s.Terminate()
			harness.Eventually(t, harness.Patience, "the ports are not forwarded any more", func() error {
				rules := mustInside(t, router, "", "nft", "list", "ruleset")
				return harness.Check(!strings.Contains(rules, "dnat"), "%s", rules)
			})
		})
	}
}
