package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Binary is the program under test: HEARTH_BIN, or the release build.
func Binary() string {
	if bin := os.Getenv("HEARTH_BIN"); bin != "" {
		return bin
	}
	return filepath.Join("..", "..", "target", "release", "hearth")
}

// command builds a call of the program under test, through the emulator named
// by HEARTH_RUNNER when there is one.
func command(args ...string) *exec.Cmd {
	bin, err := filepath.Abs(Binary())
	if err != nil {
		bin = Binary()
	}
	words := append(strings.Fields(os.Getenv("HEARTH_RUNNER")), bin)
	words = append(words, args...)
	return exec.Command(words[0], words[1:]...)
}

// Command builds a call of the program under test that is no `serve`.
func Command(args ...string) *exec.Cmd { return command(args...) }

// Options choose how a server is started.
type Options struct {
	// Address is the IP address of every listener.
	Address string
	// Authority, when set, serves an https:// server URL with a certificate of
	// this authority; otherwise the server URL is plain HTTP and the relay's
	// certificate is the self-signed one that hearth makes.
	Authority *Authority
	// Args are added to the command line of `serve`.
	Args []string
	// Host, when not empty, stands in the server URL instead of Address.
	Host string
	// Wrap, when not empty, is a command that starts the program given to it.
	Wrap []string
	// Config, when not empty, is written to a file that is given by --config.
	Config string
	// HTTPAddress, when not empty, is that of the plain HTTP listener instead of Address.
	HTTPAddress string
	// URL, when not empty, is the server URL, and all listeners are those of Config.
	URL string
}

// Server is one running hearth with a data directory of its own.
type Server struct {
	t      T
	args   []string
	wrap   []string
	cmd    *exec.Cmd
	exited chan error
	log    *logBuffer

	// DataDir is its data directory.
	DataDir string
	// Address is the IP address it listens on.
	Address string
	// URL is the server URL that clients are given.
	URL string
	// HTTP, HTTPS and STUN are the host:port addresses of the listeners.
	HTTP, HTTPS, STUN string
	// Socket is the path of the control socket.
	Socket string
}

// Start starts a server and waits until it reports that it is ready.
func Start(t T, o Options) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{
		t:       t,
		log:     &logBuffer{},
		wrap:    o.Wrap,
		DataDir: filepath.Join(dir, "data"),
		Address: o.Address,
		HTTP:    net.JoinHostPort(o.Address, FreePort(t, o.Address)),
		HTTPS:   net.JoinHostPort(o.Address, FreePort(t, o.Address)),
		STUN:    net.JoinHostPort(o.Address, FreePort(t, o.Address)),
		Socket:  filepath.Join(dir, "hearth.sock"),
	}
	if o.Host == "" {
		o.Host = o.Address
	}
	if o.HTTPAddress != "" {
		s.HTTP = withHost(s.HTTP, o.HTTPAddress)
	}
	s.URL = "http://" + withHost(s.HTTP, o.Host)
	s.args = []string{
		"serve", "--data-dir", s.DataDir, "--socket", s.Socket,
		"--http", s.HTTP, "--https", s.HTTPS, "--stun", s.STUN,
	}
	if o.Authority != nil {
		s.URL = "https://" + withHost(s.HTTPS, o.Host)
		cert, key := o.Authority.Issue(t, dir, o.Host)
		s.args = append(s.args, "--tls-cert", cert, "--tls-key", key)
	}
	s.args = append(s.args, "--server-url", s.URL)
	if o.URL != "" {
		s.URL = o.URL
		s.args = []string{"serve", "--data-dir", s.DataDir, "--socket", s.Socket}
	}
	if o.Config != "" {
		file := filepath.Join(dir, "hearth.toml")
		if err := os.WriteFile(file, []byte(o.Config), 0o600); err != nil {
			t.Fatalf("config file: %v", err)
		}
		s.args = append(s.args, "--config", file)
	}
	s.args = append(s.args, o.Args...)
	t.Cleanup(func() {
		if s.cmd != nil {
			s.Kill()
		}
	})
	s.Run()
	return s
}

// withHost puts another host into a host:port address.
func withHost(address, host string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort(host, port)
}

// Run starts the process of a stopped server again, on the same data directory
// and ports.
func (s *Server) Run() {
	s.t.Helper()
	s.cmd = command(s.args...)
	if len(s.wrap) > 0 {
		s.cmd = exec.Command(s.wrap[0], append(s.wrap[1:len(s.wrap):len(s.wrap)], s.cmd.Args...)...)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	// Should the test process be killed, the server must not outlive it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", s.cmd.Path, err)
	}
	s.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(s.cmd, s.exited)
	Eventually(s.t, Patience, "hearth is ready", func() error {
		select {
		case err := <-s.exited:
			s.cmd = nil
			s.t.Fatalf("hearth ended at start: %v\n%s", err, s.log)
		default:
		}
		status, err := s.TryStatus()
		if err != nil {
			return err
		}
		return Check(status.Ready, "its status is %+v", status)
	})
}

// Terminate sends SIGTERM and checks the promise that the server is gone, with
// exit code 0, within 4 seconds (more under an emulator).
func (s *Server) Terminate() {
	s.t.Helper()
	limit := 4 * time.Second
	if os.Getenv("HEARTH_RUNNER") != "" {
		limit *= 5
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		s.cmd = nil
		if err != nil {
			s.t.Fatalf("hearth did not stop cleanly at SIGTERM: %v\n%s", err, s.log)
		}
	case <-time.After(limit):
		s.Kill()
		s.t.Fatalf("hearth did not stop within %v of SIGTERM\n%s", limit, s.log)
	}
}

// Kill ends the process as a power cut would: with no chance to say goodbye.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Alive fails the test if the process has ended by itself.
func (s *Server) Alive() {
	s.t.Helper()
	select {
	case err := <-s.exited:
		s.cmd = nil
		s.t.Fatalf("hearth ended by itself: %v\n%s", err, s.log)
	default:
	}
}

// PID is the process id of the running server.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log is what the server has printed so far.
func (s *Server) Log() string { return s.log.String() }

// CLI runs a command of the program against this server and returns its
// standard output.
func (s *Server) CLI(args ...string) string {
	s.t.Helper()
	out, err := s.TryCLI(args...)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return out
}

// TryCLI is CLI for a command that may fail; the error holds what it printed.
func (s *Server) TryCLI(args ...string) (string, error) {
	cmd := command(append(args, "--socket", s.Socket)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("hearth %s: %v: %s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// JSON runs a command with `-o json` and decodes what it prints into v.
func (s *Server) JSON(v any, args ...string) {
	s.t.Helper()
	out := s.CLI(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		s.t.Fatalf("hearth %s printed something that is not the JSON expected: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Status is the part of `hearth status -o json` that the tests rely on.
type Status struct {
	Version   string `json:"version"`
	ServerURL string `json:"serverUrl"`
	Nodes     int    `json:"nodes"`
	Online    int    `json:"online"`
	Pending   int    `json:"pending"`
	Revision  uint64 `json:"revision"`
	Ready     bool   `json:"ready"`
	HTTP      string `json:"http"`
	HTTPS     string `json:"https"`
	STUN      string `json:"stun"`
	Relay     struct {
		Connections     int    `json:"connections"`
		PacketsReceived uint64 `json:"packetsReceived"`
		PacketsSent     uint64 `json:"packetsSent"`
		BytesSent       uint64 `json:"bytesSent"`
		PacketsDropped  uint64 `json:"packetsDropped"`
		Refused         uint64 `json:"refused"`
	} `json:"relay"`
}

// TryStatus asks the server for its status.
func (s *Server) TryStatus() (Status, error) {
	var status Status
	out, err := s.TryCLI("status", "-o", "json")
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal([]byte(out), &status)
}

// Status is TryStatus for a server that must answer.
func (s *Server) Status() Status {
	s.t.Helper()
	status, err := s.TryStatus()
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return status
}

// Node is the part of a node in `hearth nodes list -o json` that the tests use.
type Node struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	GivenName   string   `json:"givenName"`
	NodeKey     string   `json:"nodeKey"`
	IPAddresses []string `json:"ipAddresses"`
	Online      bool     `json:"online"`
	LastSeen    string   `json:"lastSeen"`
	Expiry      string   `json:"expiry"`
	Tags        []string `json:"tags"`
	User        struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
}

// Nodes lists the nodes.
func (s *Server) Nodes() []Node {
	s.t.Helper()
	var nodes []Node
	s.JSON(&nodes, "nodes", "list")
	return nodes
}

// NodeNamed finds a node by its given name, nil if there is none.
func (s *Server) NodeNamed(name string) *Node {
	s.t.Helper()
	for _, node := range s.Nodes() {
		if node.GivenName == name {
			return &node
		}
	}
	return nil
}

// MustNode finds a node that has to be there by its given name.
func (s *Server) MustNode(name string) Node {
	s.t.Helper()
	node := s.NodeNamed(name)
	if node == nil {
		s.t.Fatalf("hearth knows no node %q", name)
	}
	return *node
}

// User makes a user.
func (s *Server) User(name string) {
	s.t.Helper()
	s.CLI("users", "create", name)
}

// Key makes a pre-authentication key for the user. The promise is that only the
// secret is on standard output.
func (s *Server) Key(user string, flags ...string) string {
	s.t.Helper()
	out := s.CLI(append([]string{"preauthkeys", "create", "--user", user}, flags...)...)
	key := strings.TrimSuffix(out, "\n")
	if key == "" || strings.ContainsAny(key, " \n\t") {
		s.t.Fatalf("preauthkeys create printed more than the key: %q", out)
	}
	return key
}

// Login is the part of a login in `hearth pending list -o json` that the tests
// use.
type Login struct {
	AuthID string `json:"authId"`
	State  string `json:"state"`
	Name   string `json:"name"`
}

// Waiting finds a login that waits for approval by its id, nil if there is none.
func (s *Server) Waiting(id string) *Login {
	s.t.Helper()
	var logins []Login
	s.JSON(&logins, "pending", "list")
	for _, login := range logins {
		if login.AuthID == id && login.State == "waiting" {
			return &login
		}
	}
	return nil
}

// logBuffer keeps what the server prints. It is bounded, because a server that
// goes wild in a test must not take the machine's memory.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	if over := len(b.text) - 256<<10; over > 0 {
		b.text = b.text[over:]
	}
	if os.Getenv("HEARTH_TEST_VERBOSE") != "" {
		os.Stderr.Write(p)
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
