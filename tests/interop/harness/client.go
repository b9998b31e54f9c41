package harness

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"tailscale.com/control/ts2021"
	"tailscale.com/net/netmon"
	"tailscale.com/net/tsdial"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/util/zstdframe"
)

// Client is a bare protocol client: the official Noise transport, and on top of
// it requests that the test writes itself, so that it can be as odd as it likes
// and sees every byte of the answers.
type Client struct {
	URL     string
	Machine key.MachinePrivate
	Node    key.NodePrivate
	Disco   key.DiscoPrivate
	// Version is the capability version it speaks.
	Version tailcfg.CapabilityVersion
	// Hostname is what it calls itself.
	Hostname string

	noise *ts2021.Client
}

// NewClient makes a client with fresh keys, of the given capability version (0
// is the current one). It fetches the server's key.
func NewClient(t T, url, hostname string, version tailcfg.CapabilityVersion) *Client {
	t.Helper()
	if version == 0 {
		version = tailcfg.CurrentCapabilityVersion
	}
	c := &Client{
		URL: url, Hostname: hostname, Version: version,
		Machine: key.NewMachine(), Node: key.NewNode(), Disco: key.NewDisco(),
	}
	serverKey, err := FetchServerKey(url, version)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := c.connect(serverKey); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// DialClient is NewClient of the current version that may fail, for tests in which the
// server may be gone. The caller closes it.
func DialClient(url, hostname string) (*Client, error) {
	c := &Client{
		URL: url, Hostname: hostname, Version: tailcfg.CurrentCapabilityVersion,
		Machine: key.NewMachine(), Node: key.NewNode(), Disco: key.NewDisco(),
	}
	serverKey, err := FetchServerKey(url, c.Version)
	if err != nil {
		return nil, err
	}
	return c, c.connect(serverKey)
}

// connect sets up the Noise client; the connection is made by the first request.
func (c *Client) connect(serverKey key.MachinePublic) error {
	noise, err := ts2021.NewClient(ts2021.ClientOpts{
		ServerURL:       c.URL,
		PrivKey:         c.Machine,
		ServerPubKey:    serverKey,
		Dialer:          tsdial.NewFromFuncForDebug(logger.Discard, (&net.Dialer{}).DialContext),
		Logf:            logger.Discard,
		NetMon:          netmon.NewStatic(),
		ProtocolVersion: uint16(c.Version),
	})
	c.noise = noise
	return err
}

// Close drops the client's connections without a word, as a client that loses
// its network does.
func (c *Client) Close() { c.noise.Close() }

// FetchServerKey reads /key strictly.
func FetchServerKey(url string, version tailcfg.CapabilityVersion) (key.MachinePublic, error) {
	res, err := http.Get(url + "/key?v=" + strconv.Itoa(int(version)))
	if err != nil {
		return key.MachinePublic{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return key.MachinePublic{}, err
	}
	if res.StatusCode != http.StatusOK {
		return key.MachinePublic{}, fmt.Errorf("/key answers %s: %s", res.Status, body)
	}
	var keys tailcfg.OverTLSPublicKeyResponse
	if err := Strict(body, &keys); err != nil {
		return key.MachinePublic{}, fmt.Errorf("/key: %w", err)
	}
	return keys.PublicKey, nil
}

// Strict decodes JSON into the official type and refuses any member that the
// type does not have, or that is spelt in another case than the type's.
func Strict(body []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return fmt.Errorf("strict decoding into %T: %w\n%.2000s", v, err, body)
	}
	if decoder.More() {
		return fmt.Errorf("more than one JSON value\n%.2000s", body)
	}
	// The official views refuse to be decoded into twice.
	again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
	err := jsonv2.Unmarshal(body, again, jsonv1.DefaultOptionsV1(),
		jsonv2.MatchCaseInsensitiveNames(false), jsonv2.RejectUnknownMembers(true))
	if err != nil {
		return fmt.Errorf("strict decoding into %T: %w\n%.2000s", v, err, body)
	}
	return nil
}

// Hostinfo is the least a client says of itself.
func (c *Client) Hostinfo() *tailcfg.Hostinfo {
	return &tailcfg.Hostinfo{
		Hostname: c.Hostname, OS: "linux", BackendLogID: "test-" + c.Hostname,
		IPNVersion: "1.102.5", GoArch: "amd64",
	}
}

// Post sends a body as it is on the Noise connection and returns status and
// answer. The answer is read to at most 1 MiB.
func (c *Client) Post(ctx context.Context, path string, body []byte) (int, []byte, error) {
	return c.Do(ctx, "POST", path, body)
}

// Do is Post with another method.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://unused"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := c.noise.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, answer, err
}

// RegisterRequest is a plain registration, for the caller to alter.
func (c *Client) RegisterRequest(authKey string) *tailcfg.RegisterRequest {
	request := &tailcfg.RegisterRequest{
		Version: c.Version, NodeKey: c.Node.Public(), Hostinfo: c.Hostinfo(),
	}
	if authKey != "" {
		request.Auth = &tailcfg.RegisterResponseAuth{AuthKey: authKey}
	}
	return request
}

// Register sends a registration and decodes the answer strictly.
func (c *Client) Register(ctx context.Context, request *tailcfg.RegisterRequest) (*tailcfg.RegisterResponse, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	status, answer, err := c.Post(ctx, "/machine/register", body)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("register: http %d: %s", status, answer)
	}
	response := new(tailcfg.RegisterResponse)
	return response, Strict(answer, response)
}

// Join registers with an auth key and fails the test unless that succeeds.
func (c *Client) Join(t T, authKey string) *tailcfg.RegisterResponse {
	t.Helper()
	response, err := c.Register(Within(t, Patience), c.RegisterRequest(authKey))
	if err != nil {
		t.Fatalf("%s registers: %v", c.Hostname, err)
	}
	if response.Error != "" || response.AuthURL != "" || response.NodeKeyExpired {
		t.Fatalf("%s is not registered: %+v", c.Hostname, response)
	}
	return response
}

// MapRequest is the streaming poll of the official client, for the caller to
// alter.
func (c *Client) MapRequest() *tailcfg.MapRequest {
	return &tailcfg.MapRequest{
		Version: c.Version, NodeKey: c.Node.Public(), DiscoKey: c.Disco.Public(),
		KeepAlive: true, Compress: "zstd", Stream: true, Hostinfo: c.Hostinfo(),
	}
}

// Update is the "lite" update with the given endpoints and home relay.
func (c *Client) Update(region int, endpoints ...string) *tailcfg.MapRequest {
	request := c.MapRequest()
	request.Stream, request.OmitPeers = false, true
	request.Hostinfo.NetInfo = &tailcfg.NetInfo{PreferredDERP: region}
	for _, endpoint := range endpoints {
		request.Endpoints = append(request.Endpoints, netip.MustParseAddrPort(endpoint))
		request.EndpointTypes = append(request.EndpointTypes, tailcfg.EndpointLocal)
	}
	return request
}

// SendUpdate sends a lite update, which must be answered 200 with nothing.
func (c *Client) SendUpdate(t T, request *tailcfg.MapRequest) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatalf("%v", err)
	}
	status, answer, err := c.Post(Within(t, Patience), "/machine/map", body)
	if err != nil || status != http.StatusOK || len(answer) != 0 {
		t.Fatalf("lite update of %s: status %d, %d bytes, error %v: %.200s", c.Hostname, status, len(answer), err, answer)
	}
}

// Stream is a running map poll.
type Stream struct {
	body       io.ReadCloser
	compressed bool
	cancel     context.CancelFunc
	// Raw is the decompressed JSON of the last message.
	Raw []byte
	// Arrived is when the last byte of the last message was read.
	Arrived time.Time
	// WireBytes counts what came over the wire, with the length prefixes.
	WireBytes int
}

// StatusError is an answer to a map request other than 200.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("map: http %d: %s", e.Status, e.Text) }

// Map starts a poll.
func (c *Client) Map(ctx context.Context, request *tailcfg.MapRequest) (*Stream, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, "POST", "https://unused/machine/map", bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, err
	}
	res, err := c.noise.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer cancel()
		defer res.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, &StatusError{Status: res.StatusCode, Text: string(text)}
	}
	return &Stream{body: res.Body, compressed: request.Compress == "zstd", cancel: cancel}, nil
}

// MustMap starts a poll that has to work, and ends it with the test.
func (c *Client) MustMap(t T, request *tailcfg.MapRequest) *Stream {
	t.Helper()
	stream, err := c.Map(context.Background(), request)
	if err != nil {
		t.Fatalf("%s polls: %v", c.Hostname, err)
	}
	t.Cleanup(stream.Close)
	return stream
}

// Close ends the poll from the client's side.
func (s *Stream) Close() {
	s.cancel()
	s.body.Close()
}

// Next reads one message, strictly. It returns io.EOF when the server ended the
// poll cleanly between two messages.
func (s *Stream) Next() (*tailcfg.MapResponse, error) {
	if err := s.Read(); err != nil {
		return nil, err
	}
	response := new(tailcfg.MapResponse)
	return response, Strict(s.Raw, response)
}

// Read reads one message into Raw without looking at it.
func (s *Stream) Read() error {
	var length [4]byte
	if _, err := io.ReadFull(s.body, length[:]); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint32(length[:])
	if size == 0 || size > 4<<20 {
		return fmt.Errorf("a map message of %d bytes", size)
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(s.body, message); err != nil {
		return fmt.Errorf("a map message of %d bytes is cut off: %w", size, err)
	}
	s.Arrived = time.Now()
	s.WireBytes += 4 + len(message)
	s.Raw = message
	if !s.compressed {
		return nil
	}
	var err error
	s.Raw, err = zstdframe.AppendDecode(nil, message)
	return err
}

// Until reads messages until want accepts one, which it returns. The poll is
// ended, and the test fails, when that takes too long.
func (s *Stream) Until(t T, what string, want func(*tailcfg.MapResponse) bool) *tailcfg.MapResponse {
	t.Helper()
	timer := time.AfterFunc(Patience, s.Close)
	defer timer.Stop()
	for {
		response, err := s.Next()
		if err != nil {
			t.Fatalf("waiting for %s in the map stream: %v", what, err)
		}
		if want(response) {
			return response
		}
	}
}
