package interop

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/tailcfg"

	"hearth.test/interop/harness"
)

const (
	// proxyEnv names the proxy, in the re-executed test program.
	proxyEnv = "HEARTH_TEST_PROXY"
	// proxyEtc is an empty directory that becomes its /etc.
	proxyEtc = "HEARTH_TEST_ETC"
	// proxyPage has the configurations that are tested.
	proxyPage = "../../docs/reverse-proxy.md"
	// proxyName is the name that the page uses for the server.
	proxyName = "hearth.example.com"
	// proxyIdle is how long nothing is said on the connections through a proxy, unless
	// proxyIdleEnv says another time.
	proxyIdle    = 3 * time.Minute
	proxyIdleEnv = "HEARTH_TEST_IDLE"
)

// ownEtc gives the program a copy of /etc that it may change.
const ownEtc = `set -e
mount -t tmpfs etc "$` + proxyEtc + `"
cp -a /etc/. "$` + proxyEtc + `"
mount --bind "$` + proxyEtc + `" /etc
exec "$0" "$@"`

// proxy is how one is run, and spoilt.
type proxy struct {
	// prepare writes what the page leaves to the system, and returns the command.
	prepare func(t *testing.T, dir string) []string
	// spoil changes a configuration of the page so that it drops upgrades.
	spoil func(text string) string
}

var proxies = map[string]proxy{
	"nginx": {
		prepare: func(t *testing.T, dir string) []string {
			temp := ""
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temp += fmt.Sprintf("%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
			}
			// What Debian's nginx.conf does.
			main := "daemon off;\nmaster_process off;\npid " + filepath.Join(dir, "pid") + ";\nevents {}\n" +
				"http {\naccess_log off;\n" + temp + "include /etc/nginx/conf.d/*.conf;\n}\n"
			file := writeFile(t, filepath.Join(dir, "nginx.conf"), main)
			return []string{"nginx", "-e", "stderr", "-c", file}
		},
		spoil: func(text string) string {
			text = strings.Replace(text, "proxy_set_header Upgrade", "#", 1)
			return strings.Replace(text, "proxy_set_header Connection", "#", 1)
		},
	},
	"caddy": {
		prepare: func(t *testing.T, dir string) []string {
			// Certificates of the test's authority instead of a public one.
			options := fmt.Sprintf("{\n admin off\n skip_install_trust\n local_certs\n pki {\n  ca local {\n   root {\n"+
				"    cert %s\n    key %s\n   }\n  }\n }\n}\nimport /etc/caddy/Caddyfile\n", authority.File, authority.KeyFile)
			file := writeFile(t, filepath.Join(dir, "Caddyfile"), options)
			return []string{"env", "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir,
				"caddy", "run", "--config", file, "--adapter", "caddyfile"}
		},
		spoil: func(text string) string {
			return strings.Replace(text, "127.0.0.1:8080", "127.0.0.1:8080 {\nheader_up -Upgrade\n}", 1)
		},
	},
	"haproxy": {
		prepare: func(t *testing.T, dir string) []string {
			return []string{"haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"}
		},
		spoil: func(text string) string {
			return strings.Replace(text, "default_backend", "http-request del-header Upgrade\n default_backend", 1)
		},
	},
	"apache2": {
		prepare: func(t *testing.T, dir string) []string {
			modules := apacheModules(t)
			// What Debian's apache2.conf, ports.conf and modules do.
			main := "ServerRoot " + dir + "\nDefaultRuntimeDir " + dir + "\nPidFile " + filepath.Join(dir, "pid") + "\n" +
				"ErrorLog /dev/stderr\nTimeout 300\nUser nobody\nGroup nogroup\n" + modules +
				"<Directory />\nRequire all denied\n</Directory>\n" +
				"MaxRequestWorkers 150\nRequestReadTimeout header=20-40,minrate=500\nRequestReadTimeout body=10,minrate=500\n" +
				"Listen 443\nIncludeOptional /etc/apache2/sites-available/*.conf\n"
			file := writeFile(t, filepath.Join(dir, "apache2.conf"), main)
			return []string{"apache2", "-D", "FOREGROUND", "-f", file}
		},
		// What a page for WebSockets alone says.
		spoil: func(text string) string {
			return strings.Replace(text, "upgrade=ANY", "upgrade=websocket", 1)
		},
	},
	"traefik": {
		prepare: func(t *testing.T, dir string) []string {
			return []string{"traefik", "--configFile=/etc/traefik/traefik.yml"}
		},
		spoil: func(text string) string {
			text = strings.Replace(text, "      service: hearth\n", "      service: hearth\n      middlewares: [spoil]\n", 1)
			return strings.Replace(text, "  services:\n",
				"  middlewares:\n    spoil:\n      headers:\n        customRequestHeaders:\n          Upgrade: \"\"\n  services:\n", 1)
		},
	},
}

// TestBehindAProxy: clients work through each proxy that docs/reverse-proxy.md configures,
// with these very lines. Each runs with hearth and the clients in namespaces of its own.
func TestBehindAProxy(t *testing.T) {
	needNamespace(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("there is no %s", name)
			}
			args := []string{"--mount", "--", "sh", "-c", ownEtc, self, "-test.run=^TestProxyStories$", "-test.v", "-test.timeout=15m"}
			cmd := exec.Command("unshare", args...)
			// It makes a network namespace of its own.
			for _, line := range os.Environ() {
				if !strings.HasPrefix(line, "HEARTH_TEST_ADDRESS=") {
					cmd.Env = append(cmd.Env, line)
				}
			}
			cmd.Env = append(cmd.Env, proxyEnv+"="+name, proxyEtc+"="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), "--- PASS: TestProxyStories") {
				t.Fatalf("nothing was tested:\n%s", out)
			}
		})
	}
}

// TestProxyStories is what TestBehindAProxy runs inside of the namespaces.
func TestProxyStories(t *testing.T) {
	name := os.Getenv(proxyEnv)
	if name == "" {
		t.Skip("TestBehindAProxy runs it")
	}
	blocks := pageBlocks(t)
	hosts := "127.0.0.1 localhost\n" + address + " " + proxyName + "\n"
	writeFile(t, "/etc/hosts", hosts)
	installCertificate(t)

	config := blocks["/etc/hearth/hearth.toml"] + "\n[log]\nlevel = \"debug\"\n"
	s := start(t, harness.Options{Address: "127.0.0.1", Config: config, URL: "https://" + proxyName})

	// hearth is there first, and its check at the start finds no proxy yet.
	running := startProxy(t, name, blocks, func(text string) string { return text })

	t.Run("doctor", func(t *testing.T) {
		if findings := publicFindings(t, s); findings != "public.url ok" {
			t.Errorf("the doctor finds %s", findings)
		}
		harness.Eventually(t, harness.Patience, "no warning in the status", func() error {
			warnings := s.CLI("status")
			return harness.Check(!strings.Contains(warnings, "server_url"), "%s", warnings)
		})
	})
	region, clients := relayOf(t, s, 4)
	t.Run("relay", func(t *testing.T) {
		node := region.Nodes[0]
		if node.CertName != "" || node.HostName != proxyName || (node.DERPPort != 443 && node.DERPPort != 0) {
			t.Errorf("the relay is advertised as %+v", node)
		}
	})
	t.Run("idle", func(t *testing.T) { idle(t, s, region, clients) })
	t.Run("clients", func(t *testing.T) {
		key := s.Key("alice", "--reusable")
		one, two := join(t, s, "one", key).echo(), join(t, s, "two", key)
		two.sees("one")
		v4, _ := one.addresses()
		two.mustExchange(v4.String(), 300_000)
	})
	t.Run("addresses", func(t *testing.T) {
		// The debug log names the source of each connection.
		harness.Eventually(t, harness.Patience, "the address of a client", func() error {
			return harness.Check(strings.Contains(s.Log(), "source="+address), "the log has only that of the proxy:\n%s", s.Log())
		})
	})
	t.Run("upgrade", func(t *testing.T) {
		running.stop()
		spoilt := startProxy(t, name, blocks, proxies[name].spoil)
		client := harness.NewClient(t, s.URL, "spoilt", 0)
		if _, err := client.Register(harness.Within(t, 15*time.Second), client.RegisterRequest("")); err == nil {
			t.Fatal("a client connects through a proxy that drops its upgrade")
		}
		harness.Eventually(t, harness.Patience, "a line in the log", func() error {
			count := strings.Count(s.Log(), "removes the Upgrade header")
			return harness.Check(count == 1, "the log says it %d times", count)
		})
		if status := s.CLI("status"); !strings.Contains(status, "removes the Upgrade header") {
			t.Errorf("the status says nothing of it: %s", status)
		}
		if findings := publicFindings(t, s); !strings.Contains(findings, "public.upgrade problem") ||
			!strings.Contains(findings, "public.relay problem") {
			t.Errorf("the doctor finds %s", findings)
		}
		spoilt.stop()
		startProxy(t, name, blocks, func(text string) string { return text })
		if findings := publicFindings(t, s); findings != "public.url ok" {
			t.Errorf("once that is put right, the doctor finds %s", findings)
		}
		if status := s.CLI("status"); strings.Contains(status, "Upgrade header") {
			t.Errorf("the status still says it: %s", status)
		}
	})
}

// idle says nothing for a while on a map stream, a relay connection and one inside a
// WebSocket, and checks that these very connections still work.
func idle(t *testing.T, s *harness.Server, region *tailcfg.DERPRegion, clients []*harness.Client) {
	quiet := harness.NewClient(t, s.URL, "quiet", 0)
	quiet.Join(t, s.Key("alice"))
	stream := quiet.MustMap(t, quiet.MapRequest())
	stream.Until(t, "the first map", hasSelf)
	one, two := mustRelay(t, region, clients[0].Node), mustRelay(t, region, clients[1].Node)
	inside, _ := overWebSocket(t, s, clients[2].Node)
	packets := make(chan derp.ReceivedPacket, 1)
	go func() {
		for {
			message, err := inside.Recv()
			if err != nil {
				close(packets)
				return
			}
			if packet, ok := message.(derp.ReceivedPacket); ok {
				packets <- packet
			}
		}
	}()

	var messages atomic.Int32
	renamed := make(chan error, 1)
	go func() {
		for {
			message, err := stream.Next()
			if err != nil {
				renamed <- err
				return
			}
			messages.Add(1)
			for _, peer := range message.PeersChanged {
				if strings.HasPrefix(peer.Name, "still-here.") {
					renamed <- nil
					return
				}
			}
		}
	}()
	pause := proxyIdle
	if shorter, err := time.ParseDuration(os.Getenv(proxyIdleEnv)); err == nil {
		pause = shorter
	}
	time.Sleep(pause)
	t.Logf("%d messages came while nothing happened", messages.Load())

	carry(t, one, two, []byte("still here"))
	if err := two.Send(clients[2].Node.Public(), []byte("still here")); err != nil {
		t.Fatal(err)
	}
	select {
	case packet, open := <-packets:
		if !open || string(packet.Data) != "still here" {
			t.Errorf("the WebSocket got %q", packet.Data)
		}
	case <-time.After(harness.Patience):
		t.Error("the WebSocket got nothing")
	}
	s.CLI("nodes", "rename", "still-here", "-i", s.MustNode("node0").ID)
	select {
	case err := <-renamed:
		if err != nil {
			t.Errorf("the map stream ended: %v", err)
		}
	case <-time.After(harness.Patience):
		t.Error("the map stream got nothing")
	}
}

// pageBlocks are the indented blocks of the page that begin with the path of a file.
func pageBlocks(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.Open(proxyPage)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	blocks := map[string]string{}
	path := ""
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		line, isCode := strings.CutPrefix(lines.Text(), "    ")
		if name, ok := strings.CutPrefix(line, "# /etc/"); isCode && ok {
			path = "/etc/" + name
		}
		if line == "" {
			line, isCode = "", path != ""
		}
		if !isCode {
			path = ""
		} else if path != "" {
			blocks[path] += line + "\n"
		}
	}
	if err := lines.Err(); err != nil || len(blocks) < len(proxies)+1 {
		t.Fatalf("%d configurations in %s, error %v", len(blocks), proxyPage, err)
	}
	return blocks
}

// installCertificate puts the server's certificate where the page has it.
func installCertificate(t *testing.T) {
	t.Helper()
	cert, key := authority.Issue(t, t.TempDir(), proxyName)
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	directory := "/etc/letsencrypt/live/" + proxyName
	writeFile(t, directory+"/fullchain.pem", read(cert))
	writeFile(t, directory+"/privkey.pem", read(key))
	writeFile(t, "/etc/haproxy/"+proxyName+".pem", read(cert)+read(key))
}

func writeFile(t *testing.T, file, text string) string {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// runningProxy is a proxy that listens.
type runningProxy struct {
	cmd *exec.Cmd
}

func (p *runningProxy) stop() {
	if p.cmd != nil {
		// With its workers, which have the port and the log as well.
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		p.cmd.Wait()
		p.cmd = nil
	}
}

// startProxy writes the configurations of the page, changed, and starts the proxy.
func startProxy(t *testing.T, name string, blocks map[string]string, change func(string) string) *runningProxy {
	t.Helper()
	for path, text := range blocks {
		if strings.HasPrefix(path, "/etc/"+name+"/") {
			writeFile(t, path, change(text))
		}
	}
	words := proxies[name].prepare(t, t.TempDir())
	cmd := exec.Command(words[0], words[1:]...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &runningProxy{cmd: cmd}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s says:\n%s", name, &log)
		}
	})
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{}}}
	harness.Eventually(t, harness.Patience, name+" leads to hearth", func() error {
		answer, err := client.Get("https://" + proxyName + "/health")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, &log)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return harness.Check(answer.StatusCode == http.StatusOK, "%s: %s", answer.Status, text)
	})
	return p
}

// apacheModules are the lines that load what Debian enables by itself, and what the page says
// to enable, with what those modules need. The modules are beside the program.
func apacheModules(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("apache2")
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	page, readErr := os.ReadFile(proxyPage)
	if err = errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(page), "sudo a2enmod ")
	line, _, _ = strings.Cut(line, "\n")
	if !found || line == "" {
		t.Fatalf("%s does not say which modules of Apache it needs", proxyPage)
	}
	names := []string{"mpm_event", "authz_core", "authz_host", "reqtimeout", "setenvif"}
	for name := range strings.FieldsSeq(line) {
		// The dependencies, as in mods-available/*.load.
		switch name {
		case "proxy_http", "proxy_wstunnel":
			names = append(names, "proxy")
		case "ssl":
			names = append(names, "mime", "socache_shmcb")
		}
		names = append(names, name)
	}
	lines := ""
	for _, name := range names {
		if line := fmt.Sprintf("LoadModule %s_module %s\n", name,
			filepath.Join(filepath.Dir(program), "../lib/apache2/modules/mod_"+name+".so")); !strings.Contains(lines, line) {
			lines += line
		}
	}
	return lines + "TypesConfig /dev/null\n"
}

// publicFindings are the ids and levels of what the doctor finds at the public URL.
func publicFindings(t *testing.T, s *harness.Server) string {
	t.Helper()
	var doctor struct {
		Findings []struct{ ID, Level, Detail string }
	}
	// It exits with 1 when there are problems.
	out, _ := harness.Command("doctor", "-o", "json", "--socket", s.Socket).Output()
	if err := json.Unmarshal(out, &doctor); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var found []string
	for _, finding := range doctor.Findings {
		if strings.HasPrefix(finding.ID, "public.") || strings.HasPrefix(finding.ID, "proxy.") {
			found = append(found, finding.ID+" "+finding.Level)
			t.Logf("%s: %s", finding.ID, finding.Detail)
		}
	}
	return strings.Join(found, ", ")
}

// TestRelayBehindATLSProxy: the relay is verified as a web site where a proxy is, and by the
// hash of hearth's own certificate where that is, also when it got another name.
func TestRelayBehindATLSProxy(t *testing.T) {
	t.Parallel()
	listen := func() string { return net.JoinHostPort(address, harness.FreePort(t, address)) }
	http1, https, public := listen(), listen(), listen()
	at := "https://" + public
	config := fmt.Sprintf("server_url = %q\n[listen]\nhttp = %q\nhttps = %q\nstun = %q\n", at, http1, https, https)
	frontend(t, public, http1)
	s := start(t, harness.Options{Address: address, Config: config, URL: at})
	region, clients := relayOf(t, s, 2)
	if node := region.Nodes[0]; node.CertName != "" || fmt.Sprint(node.DERPPort) != port(public) {
		t.Errorf("behind a proxy the relay is advertised as %+v", node)
	}
	carry(t, mustRelay(t, region, clients[0].Node), mustRelay(t, region, clients[1].Node), []byte("by the proxy"))

	// Now by a listener of its own, under a name that its certificate does not have yet.
	s.Terminate()
	config += fmt.Sprintf("[derp]\nhost_name = \"relay.home.example\"\nport = %s\nipv4 = %q\n", port(https), address)
	writeFile(t, filepath.Join(filepath.Dir(s.Socket), "hearth.toml"), config)
	s.Run()
	stream := clients[0].MustMap(t, clients[0].MapRequest())
	region = stream.Until(t, "a map with a pinned relay", func(message *tailcfg.MapResponse) bool {
		return message.DERPMap != nil && message.DERPMap.Regions[900].Nodes[0].CertName != ""
	}).DERPMap.Regions[900]
	if host := region.Nodes[0].HostName; host != "relay.home.example" {
		t.Errorf("by its own listener the relay is advertised as %s", host)
	}
	carry(t, mustRelay(t, region, clients[0].Node), mustRelay(t, region, clients[1].Node), []byte("directly"))
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// frontend is a TLS proxy that passes upgrades.
func frontend(t *testing.T, at, to string) {
	t.Helper()
	cert, key := authority.Issue(t, t.TempDir(), address)
	listener, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	go server.ServeTLS(listener, cert, key)
	t.Cleanup(func() { server.Close() })
}
