package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/control/controlhttp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"
)

// Endpoints that tell a device's number to whoever sees them in a map: 198.18.x.y
// is the device's own, 198.19.x.y the one of a measured change (RFC 2544 keeps
// both ranges for benchmarks). Searching for them costs far less than decoding.
const (
	ownMark    = `"198.18.`
	changeMark = `"198.19.`
)

func marked(second byte, number int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, second, byte(number >> 8), byte(number)}), 41641)
}

// server is what devices need to know of a server.
type server struct {
	host, httpPort, httpsPort string
	url, authKey              string
	// region is the relay that devices name as their home.
	region int
}

func newServer(address, authKey string) (*server, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	s := &server{host: u.Hostname(), url: address, authKey: authKey, region: 900}
	switch u.Scheme {
	case "http":
		s.httpPort, s.httpsPort = u.Port(), controlhttp.NoPort
		if s.httpPort == "" {
			s.httpPort = "80"
		}
	case "https":
		// The dialer tries its HTTP port first; a port that nobody can have makes it go on.
		s.httpPort, s.httpsPort = "0", u.Port()
		if s.httpsPort == "" {
			s.httpsPort = "443"
		}
	default:
		return nil, fmt.Errorf("%s is no http or https URL", address)
	}
	return s, nil
}

func (s *server) key(ctx context.Context) (key.MachinePublic, error) {
	text, err := fetch(ctx, s.url+"/key?v="+strconv.Itoa(int(tailcfg.CurrentCapabilityVersion)))
	if err != nil {
		return key.MachinePublic{}, err
	}
	var keys tailcfg.OverTLSPublicKeyResponse
	err = json.Unmarshal(text, &keys)
	return keys.PublicKey, err
}

// device is one simulated client.
type device struct {
	fleet   *fleet
	number  int
	machine key.MachinePrivate
	node    key.NodePrivate
	disco   key.DiscoPrivate

	// dialer, when set, gives the connections instead of TCP.
	dialer func(context.Context) (net.Conn, error)
	// padding is how long the part of the hostinfo that others see is made, in bytes.
	padding int

	serverKey key.MachinePublic
	wire      *wire
	stream    *call
	hasHome   bool
	// hostname, when set, is what it calls itself; version counts updates of its system.
	hostname string
	version  int
	// routes are the subnets that it offers to forward.
	routes []netip.Prefix
	// moved is the number of the last measured change of its endpoints; 0 is none.
	moved int

	// The rest belongs to the connection's goroutine.

	// partial is a message that has not come to its end.
	partial []byte
	// knows has a bit for each device whose endpoint it was told since it connected.
	knows []uint64
	// first is closed at the first message of a stream.
	first chan struct{}
	// change is the last measured change that it was told of.
	change int
	// observer, when set, gets all messages.
	observer *observer
}

func (f *fleet) newDevice(number int) *device {
	return &device{
		fleet: f, number: number,
		machine: key.NewMachine(), node: key.NewNode(), disco: key.NewDisco(),
	}
}

func (d *device) hostinfo() *tailcfg.Hostinfo {
	info := &tailcfg.Hostinfo{
		IPNVersion: "1.102.5-t0123456789-g0123456789", BackendLogID: fmt.Sprintf("%064x", d.number),
		OS: "linux", OSVersion: "6.12.48+deb13-amd64", Distro: "debian", DistroVersion: "13.1",
		DistroCodeName: "trixie", Machine: "x86_64", GoArch: "amd64", GoArchVar: "v1", GoVersion: "go1.26.6",
		Hostname: fmt.Sprintf("device-%d", d.number), Userspace: "false", UserspaceRouter: "false",
		Services: []tailcfg.Service{
			{Proto: tailcfg.PeerAPI4, Port: uint16(40000 + d.number)}, {Proto: tailcfg.PeerAPI6, Port: uint16(40000 + d.number)},
			{Proto: tailcfg.PeerAPIDNS, Port: 1},
		},
	}
	if d.hostname != "" {
		info.Hostname = d.hostname
	}
	if d.version > 0 {
		info.OSVersion = fmt.Sprintf("6.12.48+deb13u%d-amd64", d.version)
	}
	info.RoutableIPs = d.routes
	if d.padding > 0 {
		d.pad(info)
	}
	if d.hasHome {
		info.NetInfo = &tailcfg.NetInfo{
			MappingVariesByDestIP: "false", WorkingIPv6: "false", OSHasIPv6: "true", WorkingUDP: "true",
			HavePortMap: true, UPnP: "true", PMP: "false", PCP: "false", PreferredDERP: d.fleet.server.region,
			DERPLatency: map[string]float64{fmt.Sprintf("%d-v4", d.fleet.server.region): 0.0123},
		}
	}
	return info
}

// pad makes a hostinfo as long as one may be that others are told whole, and offers as
// many routes as fit.
func (d *device) pad(info *tailcfg.Hostinfo) {
	// What the server adds around the keys, and the other members that it passes on.
	const rest = 900
	keys := (d.padding - rest) / 100
	for number := range max(keys, 0) {
		info.SSH_HostKeys = append(info.SSH_HostKeys, fmt.Sprintf("ssh-ed25519 %080d", d.number<<8|number))
	}
	for number := range min(d.padding/18, 1024) {
		address := netip.AddrFrom4([4]byte{10, byte(d.number), byte(number >> 8), byte(number)})
		info.RoutableIPs = append(info.RoutableIPs, netip.PrefixFrom(address, 32))
	}
}

func (d *device) request() *tailcfg.MapRequest {
	request := &tailcfg.MapRequest{
		Version: tailcfg.CurrentCapabilityVersion, NodeKey: d.node.Public(), DiscoKey: d.disco.Public(),
		KeepAlive: true, Compress: "zstd", Hostinfo: d.hostinfo(),
	}
	if d.hasHome {
		lan := netip.AddrFrom4([4]byte{192, 168, byte(d.number >> 8), byte(d.number)})
		request.Endpoints = []netip.AddrPort{marked(18, d.number), netip.AddrPortFrom(lan, 41641)}
		request.EndpointTypes = []tailcfg.EndpointType{tailcfg.EndpointSTUN, tailcfg.EndpointLocal}
		if d.moved > 0 {
			request.Endpoints = append(request.Endpoints, marked(19, d.moved))
			request.EndpointTypes = append(request.EndpointTypes, tailcfg.EndpointSTUN)
		}
	}
	return request
}

// join makes the device a member: register, poll, and then tell endpoints and
// home relay, as the official client does at its first start.
func (d *device) join(ctx context.Context) error {
	return d.joinWith(ctx, d.fleet.server.authKey)
}

// joinWith joins, or logs in again, with a preauth key.
func (d *device) joinWith(ctx context.Context, authKey string) error {
	var err error
	if d.serverKey, err = d.fleet.server.key(ctx); err != nil {
		return err
	}
	if err := d.dial(ctx); err != nil {
		return err
	}
	registered, err := d.register(ctx, authKey)
	if err != nil {
		return err
	}
	if registered.Error != "" || registered.AuthURL != "" || !registered.MachineAuthorized {
		return fmt.Errorf("not registered: %+v", registered)
	}
	if err := d.poll(ctx); err != nil {
		return err
	}
	d.hasHome = true
	return d.update(ctx)
}

// register asks to become a member, with a key or without.
func (d *device) register(ctx context.Context, authKey string) (*tailcfg.RegisterResponse, error) {
	request := &tailcfg.RegisterRequest{
		Version: tailcfg.CurrentCapabilityVersion, NodeKey: d.node.Public(), Hostinfo: d.hostinfo(),
	}
	if authKey != "" {
		request.Auth = &tailcfg.RegisterResponseAuth{AuthKey: authKey}
	}
	return d.ask(ctx, request)
}

// logOut ends the device's login, as `tailscale logout` does.
func (d *device) logOut(ctx context.Context) error {
	_, err := d.ask(ctx, &tailcfg.RegisterRequest{
		Version: tailcfg.CurrentCapabilityVersion, NodeKey: d.node.Public(), Hostinfo: d.hostinfo(),
		// The moment that the official client names (doLogin in control/controlclient/direct.go).
		Expiry: time.Unix(123, 0),
	})
	return err
}

func (d *device) ask(ctx context.Context, request *tailcfg.RegisterRequest) (*tailcfg.RegisterResponse, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	answer, err := d.wire.post(ctx, "/machine/register", body)
	if err != nil {
		return nil, err
	}
	registered := new(tailcfg.RegisterResponse)
	return registered, json.Unmarshal(answer, registered)
}

// comeBack connects again and polls.
func (d *device) comeBack(ctx context.Context) error {
	if err := d.dial(ctx); err != nil {
		return err
	}
	return d.poll(ctx)
}

func (d *device) dial(ctx context.Context) error {
	var err error
	d.wire, err = dial(ctx, d.dialer, &controlhttp.Dialer{
		Hostname: d.fleet.server.host, HTTPPort: d.fleet.server.httpPort, HTTPSPort: d.fleet.server.httpsPort,
		MachineKey: d.machine, ControlKey: d.serverKey, ProtocolVersion: uint16(tailcfg.CurrentCapabilityVersion),
	})
	return err
}

// hangUp drops the connection, and returns when nothing of it is handled any more.
func (d *device) hangUp() {
	if d.wire != nil {
		d.wire.close()
		<-d.wire.gone
	}
}

// mapOnce asks for the map as it is now, beside the stream and without telling anything.
func (d *device) mapOnce(ctx context.Context) ([]byte, error) {
	request := d.request()
	request.ReadOnly = true
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	answer, err := d.wire.post(ctx, "/machine/map", body)
	if err != nil {
		return nil, err
	}
	if len(answer) < 4 || len(answer) != 4+int(binary.LittleEndian.Uint32(answer)) {
		return nil, fmt.Errorf("a map of %d bytes is not what its length says", len(answer))
	}
	return zstdframe.AppendDecode(nil, answer[4:])
}

// poll opens the stream and waits for its first message.
func (d *device) poll(ctx context.Context) error {
	request := d.request()
	request.Stream = true
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	d.partial, d.first = nil, make(chan struct{})
	if !d.fleet.unmeasured {
		d.knows = make([]uint64, d.fleet.size/64+1)
	}
	if d.observer != nil {
		d.observer.begin()
	}
	if d.stream, err = d.wire.start("/machine/map", body, d.take); err != nil {
		return err
	}
	select {
	case <-d.first:
		return nil
	case err := <-d.stream.done:
		return fmt.Errorf("the stream ended (status %d): %w", d.stream.status, errors.Join(err, errors.New(string(d.stream.body))))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// update tells endpoints and home relay.
func (d *device) update(ctx context.Context) error {
	request := d.request()
	request.OmitPeers = true
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	_, err = d.wire.post(ctx, "/machine/map", body)
	return err
}

var texts = sync.Pool{New: func() any { return new([]byte) }}

// take gets the pieces of the stream's body.
func (d *device) take(piece []byte) {
	arrived := time.Now()
	d.partial = append(d.partial, piece...)
	for len(d.partial) >= 4 {
		end := 4 + int(binary.LittleEndian.Uint32(d.partial))
		if len(d.partial) < end {
			return
		}
		text := texts.Get().(*[]byte)
		var err error
		*text, err = zstdframe.AppendDecode((*text)[:0], d.partial[4:end])
		if err != nil {
			d.fleet.fail(fmt.Errorf("device %d: %w", d.number, err))
		}
		d.message(*text, arrived)
		texts.Put(text)
		d.partial = append(d.partial[:0], d.partial[end:]...)
	}
	if len(d.partial) == 0 && cap(d.partial) > 4096 {
		d.partial = nil
	}
}

func (d *device) message(text []byte, arrived time.Time) {
	d.fleet.messages.Add(1)
	d.fleet.plainBytes.Add(int64(len(text)))
	if d.observer != nil {
		d.observer.apply(text)
	}
	select {
	case <-d.first:
	default:
		close(d.first)
	}
	if !d.fleet.unmeasured {
		d.lookForMarks(text, arrived)
	}
}

// lookForMarks notes which devices and which change a message tells of.
func (d *device) lookForMarks(text []byte, arrived time.Time) {
	news := 0
	each(text, ownMark, func(number int) {
		place, bit := number/64, uint64(1)<<(number%64)
		if number != d.number && place < len(d.knows) && d.knows[place]&bit == 0 {
			d.knows[place] |= bit
			news++
		}
	})
	d.fleet.learned(news)
	if c := d.fleet.change.Load(); c != nil && d.change < c.number {
		each(text, changeMark, func(number int) {
			if number == c.number && d.change < c.number {
				d.change = c.number
				c.told(arrived)
			}
		})
	}
}

// each calls f with the number of every marked endpoint in the text.
func each(text []byte, mark string, f func(int)) {
	for {
		place := bytes.Index(text, []byte(mark))
		if place < 0 {
			return
		}
		text = text[place+len(mark):]
		high, after := digits(text)
		low, _ := digits(after)
		f(high<<8 | low)
	}
}

// digits reads a decimal number and skips what ends it.
func digits(text []byte) (int, []byte) {
	number := 0
	for place, digit := range text {
		if digit < '0' || digit > '9' {
			return number, text[place+1:]
		}
		number = number*10 + int(digit-'0')
	}
	return number, nil
}

// change is one measured change of an endpoint.
type change struct {
	number int
	begin  time.Time
	left   atomic.Int32
	last   atomic.Int64
	done   chan struct{}
}

// told notes that one more device knows.
func (c *change) told(at time.Time) {
	after := int64(at.Sub(c.begin))
	for {
		last := c.last.Load()
		if after <= last || c.last.CompareAndSwap(last, after) {
			break
		}
	}
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
}
