package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// contestant is a control server that is started for a measurement.
type contestant struct {
	name  string
	start func(dir string, size int) (*child, *server, error)
}

// hearth starts hearth with room for so many devices.
func hearth(program string, words []string) contestant {
	return contestant{"hearth", func(dir string, size int) (*child, *server, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, nil, err
		}
		room := max(size+100, 512)
		config := fmt.Sprintf("[limits]\nconnections = %d\nconnections_per_address = %d\nmap_streams = %d\nnodes = %d\n",
			2*room, 2*room, room, room)
		file, socket := filepath.Join(dir, "hearth.toml"), filepath.Join(dir, "hearth.sock")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, nil, err
		}
		args := append(words, program)
		args = append(args, serveArguments(dir, address)...)
		c, err := startChild(args[0], args[1:]...)
		if err != nil {
			return nil, nil, err
		}
		run := func(args ...string) (string, error) {
			return output(program, append(args, "--socket", socket)...)
		}
		if err := eventually(func() error { _, err := run("status"); return err }); err != nil {
			c.stop()
			return nil, nil, fmt.Errorf("%w\n%s", err, c.log.String())
		}
		_, err = run("users", "create", "alice")
		key := ""
		if err == nil {
			key, err = run("preauthkeys", "create", "--user", "alice", "--reusable")
		}
		return finish(c, "http://"+address, key, err)
	}}
}

// serveArguments are those of a hearth with plain HTTP whose configuration, data and socket are in dir.
func serveArguments(dir, address string) []string {
	return []string{"serve", "--config", filepath.Join(dir, "hearth.toml"), "--data-dir", filepath.Join(dir, "data"),
		"--socket", filepath.Join(dir, "hearth.sock"), "--http", address, "--https", "off", "--stun", "off",
		"--server-url", "http://" + address}
}

// headscale starts Headscale, version 0.27 or newer.
func headscale(program string) contestant {
	return contestant{"headscale", func(dir string, size int) (*child, *server, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, nil, err
		}
		file := filepath.Join(dir, "config.yaml")
		config := fmt.Sprintf(headscaleConfig, address, dir)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "derp.yaml"), []byte(headscaleRelays), 0o600); err != nil {
			return nil, nil, err
		}
		c, err := startChild(program, "serve", "--config", file)
		if err != nil {
			return nil, nil, err
		}
		run := func(args ...string) (string, error) {
			return output(program, append(args, "--config", file)...)
		}
		if err := eventually(func() error { _, err := run("users", "list"); return err }); err != nil {
			c.stop()
			return nil, nil, fmt.Errorf("%w\n%s", err, c.log.String())
		}
		_, err = run("users", "create", "alice")
		key := ""
		if err == nil {
			key, err = run("preauthkeys", "create", "--user", "1", "--reusable", "--output", "json")
		}
		var created struct{ Key string }
		if err == nil {
			err = json.Unmarshal([]byte(key), &created)
		}
		return finish(c, "http://"+address, created.Key, err)
	}}
}

// A relay that does not exist: nobody dials it, but maps need one.
const headscaleRelays = `regions:
  900:
    regionid: 900
    regioncode: bench
    regionname: bench
    nodes:
      - {name: 900a, regionid: 900, hostname: 127.0.0.1, stunport: -1}
`

const headscaleConfig = `server_url: http://%[1]s
listen_addr: %[1]s
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:0
grpc_allow_insecure: false
noise: {private_key_path: %[2]s/noise.key}
prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
derp:
  server: {enabled: false}
  urls: []
  paths: [%[2]s/derp.yaml]
  auto_update_enabled: false
disable_check_updates: true
ephemeral_node_inactivity_timeout: 30m
database: {type: sqlite, sqlite: {path: %[2]s/db.sqlite, write_ahead_log: true}}
log: {level: error, format: text}
policy: {mode: file, path: ""}
dns: {magic_dns: true, base_domain: bench.internal, override_local_dns: false, nameservers: {global: []}}
unix_socket: %[2]s/headscale.sock
unix_socket_permission: "0700"
logtail: {enabled: false}
`

func finish(c *child, url, key string, err error) (*child, *server, error) {
	if err == nil {
		var s *server
		if s, err = newServer(url, key); err == nil {
			return c, s, nil
		}
	}
	c.stop()
	return nil, nil, err
}

func output(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var fault strings.Builder
	cmd.Stderr = &fault
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, fault.String())
	}
	return strings.TrimSpace(string(out)), err
}

// eventually tries until it works, for ten seconds.
func eventually(try func() error) error { return within(10*time.Second, try) }

// within tries until it works, for so long.
func within(patience time.Duration, try func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// freeAddress is a local address that nothing listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
