package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// A contestant is a relay under one transport.
type contestant struct {
	name  string
	tls   bool
	start func(dir string) (*process, string, error)
	// dial gives a connection; two in a row can talk to each other.
	dial func(address string) (client, error)
	// clients without a protocol have no names and cannot be counted idle.
	bare bool
}

// A client of a relay.
type client interface {
	key() key.NodePublic
	send(to key.NodePublic, packet []byte) error
	// receive gives the next packet; it is valid until the next call.
	receive() ([]byte, error)
	close()
}

func contestants(hearth, relay, official, floor string) []contestant {
	var all []contestant
	if floor != "" {
		all = append(all, contestant{name: "floor (no protocol)", start: startFloor(floor), dial: dialBare, bare: true})
	}
	for _, tls := range []bool{false, true} {
		dial, transport := dialPlain, "http"
		if tls {
			dial, transport = dialTLS, "tls"
		}
		if official != "" {
			all = append(all, contestant{name: "derper " + transport, tls: tls, start: startOfficial(official, tls), dial: dial})
		}
		if hearth != "" {
			all = append(all, contestant{name: "hearth " + transport, tls: tls, start: startHearth(hearth, tls), dial: dial})
		}
		if relay != "" && !tls {
			all = append(all, contestant{name: "hearth-derp " + transport, start: startRelay(relay), dial: dial})
		}
	}
	return all
}

func started(p *process, err error, address string) (*process, string, error) {
	if err == nil {
		err = p.waitFor(address)
	}
	return p, address, err
}

func startFloor(path string) func(string) (*process, string, error) {
	return func(string) (*process, string, error) {
		p, err := start(path)
		if err != nil {
			return nil, "", err
		}
		for range 100 {
			time.Sleep(20 * time.Millisecond)
			if line, err := bufio.NewReader(p.log).ReadString('\n'); err == nil {
				return p, line[:len(line)-1], nil
			}
		}
		return nil, "", errors.New("the floor says no address")
	}
}

func startOfficial(path string, tls bool) func(string) (*process, string, error) {
	return func(dir string) (*process, string, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, "", err
		}
		args := []string{"-a", address, "-stun=false", "-c", filepath.Join(dir, "derper.key"), "-http-port=-1"}
		if tls {
			args = append(args, "-certmode=manual", "-hostname=127.0.0.1", "-certdir="+dir)
		}
		p, err := start(path, args...)
		return started(p, err, address)
	}
}

func startHearth(path string, tls bool) func(string) (*process, string, error) {
	return func(dir string) (*process, string, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, "", err
		}
		config := filepath.Join(dir, "hearth.toml")
		text := "[derp]\nadmit = \"open\"\n" +
			"[limits]\nconnections = 20000\nconnections_per_address = 20000\nderp_connections = 20000\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, "", err
		}
		plain, encrypted := address, "off"
		if tls {
			plain, encrypted = "off", address
		}
		p, err := start(path, "serve", "--config", config, "--data-dir", dir, "--server-url", "http://127.0.0.1:1",
			"--http", plain, "--https", encrypted, "--stun", "off")
		return started(p, err, address)
	}
}

func startRelay(path string) func(string) (*process, string, error) {
	return func(string) (*process, string, error) {
		address, err := freeAddress()
		if err != nil {
			return nil, "", err
		}
		p, err := start(path, address)
		return started(p, err, address)
	}
}

// official is the official client.
type official struct{ *derphttp.Client }

func dialPlain(address string) (client, error) {
	c, err := derphttp.NewClient(key.NewNode(), "http://"+address+"/derp", logger.Discard, netmon.NewStatic())
	if err != nil {
		return nil, err
	}
	return connected(c)
}

func dialTLS(address string) (client, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	region := &tailcfg.DERPRegion{RegionID: 900, Nodes: []*tailcfg.DERPNode{{
		Name: "900a", RegionID: 900, HostName: host, IPv4: host, IPv6: "none", DERPPort: number, InsecureForTests: true,
	}}}
	return connected(derphttp.NewRegionClient(key.NewNode(), logger.Discard, netmon.NewStatic(),
		func() *tailcfg.DERPRegion { return region }))
}

func connected(c *derphttp.Client) (client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		return nil, err
	}
	// The first message is the server's description of itself; after it the login is complete.
	message, err := c.Recv()
	if err != nil {
		return nil, err
	}
	if _, is := message.(derp.ServerInfoMessage); !is {
		return nil, fmt.Errorf("the first message is a %T", message)
	}
	return official{c}, nil
}

func (c official) key() key.NodePublic { return c.SelfPublicKey() }

func (c official) send(to key.NodePublic, packet []byte) error { return c.Send(to, packet) }

func (c official) receive() ([]byte, error) {
	for {
		message, err := c.Recv()
		if err != nil {
			return nil, err
		}
		if packet, is := message.(derp.ReceivedPacket); is {
			return packet.Data, nil
		}
	}
}

func (c official) close() { c.Close() }

// bare sends the bytes of a DERP frame, to be copied as they are.
type bare struct {
	conn   net.Conn
	reader *bufio.Reader
	frame  []byte
	packet []byte
}

const prefixBytes = 1 + 4 + 32

func dialBare(address string) (client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &bare{conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (c *bare) key() key.NodePublic { return key.NodePublic{} }

func (c *bare) send(_ key.NodePublic, packet []byte) error {
	c.frame = append(c.frame[:0], make([]byte, prefixBytes)...)
	binary.BigEndian.PutUint32(c.frame[1:], uint32(32+len(packet)))
	c.frame = append(c.frame, packet...)
	_, err := c.conn.Write(c.frame)
	return err
}

func (c *bare) receive() ([]byte, error) {
	var prefix [prefixBytes]byte
	if _, err := io.ReadFull(c.reader, prefix[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(prefix[1:])) - 32
	if cap(c.packet) < length {
		c.packet = make([]byte, length)
	}
	c.packet = c.packet[:length]
	_, err := io.ReadFull(c.reader, c.packet)
	return c.packet, err
}

func (c *bare) close() { c.conn.Close() }
