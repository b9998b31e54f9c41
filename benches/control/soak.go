package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// soak runs a tailnet for a while in which everything changes all the time, and hearth is
// ended and started again and again. See README.md for what it checks.
type soak struct {
	program  string
	duration time.Duration
	seed     uint64
	size     int
	backups  bool

	dir, address string
	server       process
	child        *child
	admin        *administrator
	fleet        *fleet
	nodes        nodes
	conns        openConns
	members      []*member
	isDown       atomic.Bool
	// dropped counts streams that ended without anybody wanting that.
	dropped atomic.Int64
	pairs   []*pair

	mu sync.Mutex
	// want is what was acknowledged.
	want *tailnet
	// users, keys and secrets are by name.
	users, keys, secrets map[string]string
	// fading are the machines that hearth still has to delete.
	fading map[string]bool
	// addresses are those of each machine.
	addresses map[string]string
	faults    []string
	whole     sampled
	warnings  map[string]int
	backedUp  []int
}

const (
	// soakConfig makes what is bounded or put off come soon enough for a short soak.
	soakConfig = `[node]
ephemeral_timeout = "1m"
[limits]
audit_log_entries = 256
audit_log_bytes = "64KiB"
flush_interval = "1m"
restart_grace = "15s"
`
	sampleEvery = time.Second
	// calmRounds is how often maps are compared at least before they count as different. On a very
	// busy machine one round may take longer than the time that there is.
	calmRounds = 5
	// relayPairs is how many pairs of devices talk over the relay.
	relayPairs = 10
	// faultsMax is how many faults are enough to stop.
	faultsMax = 20
)

// epochs is the number of epochs of a soak, and how many decisions each has: four a second in
// a short one, two a second in one of more than ten minutes.
func (s *soak) epochs() (count, each int) {
	count = 2 + int(s.duration/(450*time.Second))
	rate := 4.0
	if s.duration > 10*time.Minute {
		rate = 2
	}
	return count, max(int(s.churn(count).Seconds()*rate), 8)
}

// churn is how long the decisions of one epoch take. The rest is for restarts and checks.
func (s *soak) churn(epochs int) time.Duration { return s.duration * 85 / 100 / time.Duration(epochs) }

func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Errorf(format, args...).Error()
	s.faults = append(s.faults, text)
	fmt.Printf("  FAULT: %s\n", text)
}

func (s *soak) tooManyFaults() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.faults) >= faultsMax
}

func (s *soak) place(slot int) place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want.places[slot]
}

func (s *soak) secret(name string) string { return s.named(s.secrets, name) }
func (s *soak) userID(name string) string { return s.named(s.users, name) }
func (s *soak) keyID(name string) string  { return s.named(s.keys, name) }

func (s *soak) named(in map[string]string, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return in[name]
}

func (s *soak) name(in map[string]string, name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in[name] = value
}

// fade notes that an ephemeral device has gone without a word.
func (s *soak) fade(d *device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fading[d.machine.Public().String()] = true
}

// run is the whole soak.
func (s *soak) run() error {
	if s.size < 2*relayPairs || s.size > 300 {
		return fmt.Errorf("a soak has %d to 300 devices", 2*relayPairs)
	}
	dir, err := os.MkdirTemp("", "hearth-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	if err := s.prepare(); err != nil {
		return err
	}
	count, each := s.epochs()
	plan := newPlan(s.seed, s.size, count, each)
	fmt.Printf("soak of %v with %d devices, seed %d: %d epochs, %d decisions\n", s.duration, s.size, s.seed, count, decisions(plan))
	if err := s.start(); err != nil {
		return err
	}
	defer func() { s.child.stop() }()
	if err := s.populate(); err != nil {
		return err
	}
	stop := s.talk()
	defer stop()
	fmt.Printf("\n  %-5s %5s %9s  %-25s %-20s %-16s %-8s %s\n", "epoch", "s", "decisions", "private MB, fifths", "descriptors, fifths", "file KB, fifths", "ended by", "in the middle of")
	for number := range plan {
		if err := s.epoch(number+1, &plan[number]); err != nil {
			return err
		}
		if s.tooManyFaults() {
			return errors.New("too many faults")
		}
	}
	s.calm()
	s.renewAll()
	s.waitForFading()
	if err := flatFile.check("the database file", s.whole.file); err != nil {
		s.fail("%w", err)
	}
	s.report()
	if len(s.faults) > 0 {
		return fmt.Errorf("%d faults, seed %d", len(s.faults), s.seed)
	}
	return nil
}

func decisions(plan []epoch) int {
	sum := 0
	for i := range plan {
		sum += plan[i].count()
	}
	return sum
}

func (s *soak) prepare() error {
	s.users, s.keys, s.secrets = map[string]string{}, map[string]string{}, map[string]string{}
	s.fading, s.addresses, s.warnings = map[string]bool{}, map[string]string{}, map[string]int{}
	s.want = newTailnet(s.size)
	var err error
	if s.address, err = lastingAddress(); err != nil {
		return err
	}
	server, err := newServer("http://"+s.address, "")
	if err != nil {
		return err
	}
	s.fleet = newFleet(server, s.size)
	s.fleet.unmeasured = true
	for slot := range s.size {
		s.members = append(s.members, &member{soak: s, slot: slot})
	}
	s.admin = newAdministrator(filepath.Join(s.dir, "hearth.sock"))
	room := s.size + 212
	limits := fmt.Sprintf("connections = %d\nconnections_per_address = %d\nmap_streams = %d\nnodes = %d\n", 2*room, 2*room, room, room)
	return os.WriteFile(filepath.Join(s.dir, "hearth.toml"), []byte(soakConfig+limits), 0o600)
}

// lastingAddress is a local address for a server that is away now and then: connections that others
// open meanwhile must not take its port.
func lastingAddress() (string, error) {
	const first, last = 20000, 32000 // below the range from which Linux takes ports
	var err error
	for range 100 {
		var listener net.Listener
		listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String(), nil
		}
	}
	return "", err
}

func (s *soak) start() error {
	var err error
	if s.child, err = startChild(s.program, serveArguments(s.dir, s.address)...); err != nil {
		return err
	}
	s.server = process{s.child.cmd.Process.Pid}
	err = within(patience, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := fetch(ctx, "http://"+s.address+"/health")
		return err
	})
	if err != nil {
		err = fmt.Errorf("hearth does not start: %w\n%s", err, tail(s.child.log.String()))
		s.child.stop()
		return err
	}
	s.isDown.Store(false)
	return nil
}

// populate makes what the plan takes for granted.
func (s *soak) populate() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, name := range []string{"alice", "ben"} {
		id, err := s.admin.createUser(ctx, name)
		if err != nil {
			return err
		}
		s.name(s.users, name, id)
	}
	return nil
}

// renewKeys makes the keys with which devices join from now on. The older ones stay for those
// that log in again.
func (s *soak) renewKeys(epoch int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for whose := range keyOwners {
		id, secret, err := s.admin.createKey(ctx, s.users, whose)
		if err != nil {
			return err
		}
		s.name(s.keys, fmt.Sprint(whose, " of epoch ", epoch), id)
		s.name(s.secrets, whose, secret)
	}
	return nil
}

// talk begins the traffic over the relay; the function that it gives ends it.
func (s *soak) talk() (stop func()) {
	stopped := make(chan struct{})
	var running sync.WaitGroup
	for number := range relayPairs {
		one, other := s.members[2*number], s.members[2*number+1]
		p := &pair{
			dial: s.conns.dialer(s.address),
			keys: func() (here, there key.NodePrivate, both bool) {
				here, isHere := one.relayKey()
				there, isThere := other.relayKey()
				return here, there, isHere && isThere
			},
			fail: func(err error) { s.fail("devices %d and %d: %w", one.slot, other.slot, err) },
		}
		s.pairs = append(s.pairs, p)
		running.Go(func() { p.run(stopped) })
	}
	return func() {
		close(stopped)
		running.Wait()
	}
}

// epoch is the time from one start of hearth to the next.
func (s *soak) epoch(number int, e *epoch) error {
	began := time.Now()
	if err := s.renewKeys(number); err != nil {
		return err
	}
	for _, batch := range e.first {
		s.doAll(batch)
	}
	samples, stopSampling := s.sample()
	count, _ := s.epochs()
	pause := s.churn(count) / time.Duration(max(countAll(e.batches), 1))
	next := time.Now()
	for _, batch := range e.batches {
		time.Sleep(time.Until(next))
		s.doAll(batch)
		next = next.Add(pause * time.Duration(len(batch)))
		if s.tooManyFaults() {
			break
		}
	}
	stopSampling()
	s.judge(number, samples)
	s.calm()
	how, middle, err := s.end(&e.ending)
	if err != nil {
		return err
	}
	file, descriptors := samples.file.fifths(), samples.descriptors.fifths()
	fmt.Printf("  %-5d %5.0f %9d  %-25s %-20s %-16s %-8s %s\n", number, time.Since(began).Seconds(), e.count(),
		samples.memory.in(1e6), fmt.Sprintf("%d → %d", descriptors[2], descriptors[4]),
		fmt.Sprintf("%d → %d", file[2]/1000, file[4]/1000), how, middle)
	return nil
}

// sample measures the server until it is told to stop.
func (s *soak) sample() (*sampled, func()) {
	taken := new(sampled)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			memory, file := s.server.memory().private, fileSize(filepath.Join(s.dir, "data", "hearth.redb"))
			taken.memory = append(taken.memory, memory)
			// The devices' connections come and go as the plan says.
			taken.descriptors = append(taken.descriptors, s.server.descriptors()-int(s.conns.count.Load()))
			taken.file = append(taken.file, file)
			select {
			case <-stop:
				return
			case <-time.After(sampleEvery):
			}
		}
	}()
	return taken, func() {
		close(stop)
		<-stopped
		s.whole.file = append(s.whole.file, taken.file...)
	}
}

// judge holds what was measured in an epoch to what is flat.
func (s *soak) judge(number int, taken *sampled) {
	for _, err := range []error{
		flatMemory.check("private memory", taken.memory), flatDescriptors.check("the number of descriptors", taken.descriptors),
	} {
		if err != nil {
			s.fail("epoch %d: %w", number, err)
		}
	}
}

// doAll does all decisions of a batch at the same time.
func (s *soak) doAll(batch []decision) {
	var wait sync.WaitGroup
	for _, d := range batch {
		wait.Go(func() {
			if err := s.do(d); err != nil {
				s.fail("decision %v: %w", d, err)
			}
		})
	}
	wait.Wait()
}

// do does what a decision says, and notes it once it is acknowledged.
func (s *soak) do(d decision) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if d.kind.isGlobal() {
		err = s.change(ctx, d)
	} else {
		err = s.members[d.slot].act(ctx, d)
	}
	if err == nil {
		s.mu.Lock()
		s.want.apply(d)
		s.mu.Unlock()
	}
	return err
}

// change does what a decision about the whole tailnet says.
func (s *soak) change(ctx context.Context, d decision) error {
	switch d.kind {
	case policy:
		return s.admin.ask(ctx, "PUT", "policy", map[string]string{"policy": policyText(d.text)}, nil)
	case addKey:
		id, _, err := s.admin.createKey(ctx, s.users, d.text)
		s.name(s.keys, d.text, id)
		return err
	case removeKey:
		return s.admin.ask(ctx, "DELETE", "preauthkey?id="+s.keyID(d.text), nil, nil)
	case addUser:
		id, err := s.admin.createUser(ctx, d.text)
		s.name(s.users, d.text, id)
		return err
	case removeUser:
		return s.admin.ask(ctx, "DELETE", "user/"+s.userID(d.text), nil, nil)
	case addRecord:
		return s.admin.ask(ctx, "POST", "dns/records", newRecord(d.text), nil)
	case removeRecord:
		return s.admin.ask(ctx, "DELETE", "dns/records", newRecord(d.text), nil)
	case backup:
		return s.backUp(d)
	}
	return fmt.Errorf("nobody knows how to %s", d.kind)
}

// backUp makes a backup while everything goes on.
func (s *soak) backUp(d decision) error {
	if !s.backups {
		return nil
	}
	file := filepath.Join(s.dir, fmt.Sprint("backup-", d.number))
	defer os.Remove(file)
	if _, err := output(s.program, "backup", file, "--socket", filepath.Join(s.dir, "hearth.sock")); err != nil {
		return err
	}
	size := fileSize(file)
	if size == 0 {
		return errors.New("the backup is empty")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backedUp = append(s.backedUp, size)
	return nil
}

// end ends hearth in the middle of changes, starts it, and checks that it has what it acknowledged.
func (s *soak) end(e *ending) (how, middle string, err error) {
	answers := make(chan int, len(e.burst))
	for number, d := range e.burst {
		go func() {
			if s.do(d) != nil {
				number = -1
			}
			answers <- number
		}()
	}
	isAnswered := make([]bool, len(e.burst))
	take := func() {
		if number := <-answers; number >= 0 {
			isAnswered[number] = true
		}
	}
	for range e.answer {
		take()
	}
	s.isDown.Store(true)
	how = "SIGTERM"
	if e.kill {
		how = "SIGKILL"
		s.child.cmd.Process.Kill()
		s.child.cmd.Wait()
	} else {
		s.child.cmd.Process.Signal(syscall.SIGTERM)
		force := time.AfterFunc(patience, func() { s.child.cmd.Process.Kill() })
		if err := s.child.cmd.Wait(); err != nil {
			s.fail("after SIGTERM hearth ends with %w", err)
		}
		force.Stop()
	}
	for range len(e.burst) - e.answer {
		take()
	}
	s.readLog()
	var open []decision
	for number, d := range e.burst {
		if !isAnswered[number] {
			open = append(open, d)
		}
	}
	// So that what is read of the file is all that hearth has of them, devices come back later.
	s.hangUp()
	if err := s.start(); err != nil {
		return how, "", err
	}
	s.look(open)
	s.comeBack(open)
	// What was not answered is asked for again.
	slices.SortFunc(open, func(one, other decision) int { return one.number - other.number })
	for _, d := range open {
		s.doAll([]decision{d})
	}
	s.comeBack(nil)
	return how, fmt.Sprintf("%d changes, %d answered", len(e.burst), len(e.burst)-len(open)), nil
}

func (s *soak) hangUp() {
	for _, m := range s.members {
		m.mu.Lock()
		m.leave()
		m.mu.Unlock()
	}
}

// comeBack connects all devices that should be online and are not, but those about which something is open.
func (s *soak) comeBack(open []decision) {
	var wait sync.WaitGroup
	turns := make(chan struct{}, joinsAtOnce)
	for slot, m := range s.members {
		isOpen := slices.ContainsFunc(open, func(d decision) bool { return d.slot == slot })
		m.mu.Lock()
		isOnline := m.stays
		m.mu.Unlock()
		if p := s.place(slot); !p.member || !p.online || isOnline || isOpen {
			continue
		}
		wait.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			m.mu.Lock()
			defer m.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := m.connect(ctx, func() error { return m.device.comeBack(ctx) }); err != nil {
				s.fail("device %d cannot come back after the restart: %w", slot, err)
			}
		})
	}
	wait.Wait()
}

// calm waits until nothing changes any more, and checks that hearth has what it acknowledged and that all
// maps are those of fresh polls.
func (s *soak) calm() {
	s.look(nil)
	told := s.told()
	left := slices.Clone(s.members)
	reasons := map[int]string{}
	rounds := 0
	end := time.Now().Add(patience)
	for len(left) > 0 && (rounds < calmRounds || time.Now().Before(end)) {
		if rounds++; rounds > 1 {
			// What goes offline does so after ten seconds, and a device may ask for a map once a second.
			time.Sleep(time.Second)
		}
		var mu sync.Mutex
		var differing []*member
		var wait sync.WaitGroup
		turns := make(chan struct{}, 2)
		for _, m := range left {
			wait.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				differences, err := m.compare(told)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					differences = append(differences, err.Error())
				}
				if len(differences) > 0 {
					differing = append(differing, m)
					reasons[m.slot] = fmt.Sprintf("%d differences, such as %s", len(differences), strings.Join(differences[:min(3, len(differences))], "; "))
				}
			})
		}
		wait.Wait()
		left = differing
	}
	if len(left) == 0 {
		return
	}
	s.fail("%d devices have a map that is not that of a fresh poll", len(left))
	for _, m := range left[:min(3, len(left))] {
		s.fail("the map of device %d (node %d): %s", m.slot, int64(m.id), reasons[m.slot])
	}
}

// renewAll opens new streams, whose messages to people have to be those that devices have.
func (s *soak) renewAll() {
	for _, m := range s.members {
		differences, err := m.renew()
		if err != nil {
			s.fail("device %d cannot open another stream: %w", m.slot, err)
		}
		if len(differences) > 0 {
			s.fail("the messages of device %d: %s", m.slot, strings.Join(differences, "; "))
		}
	}
}

// told is where the devices said last that they are, those of which others are told.
func (s *soak) told() map[tailcfg.NodeID]netip.AddrPort {
	told := map[tailcfg.NodeID]netip.AddrPort{}
	for _, m := range s.members {
		m.mu.Lock()
		if m.stays && m.device.moved > 0 {
			told[m.id] = marked(19, m.device.moved)
		}
		m.mu.Unlock()
	}
	return told
}

// untruths says what a map tells of devices that is not what they told last.
func untruths(fresh *observer, told map[tailcfg.NodeID]netip.AddrPort) []string {
	var all []string
	for id, peer := range fresh.peers {
		if want, found := told[id]; found && !slices.Contains(peer.Endpoints, want) {
			all = append(all, fmt.Sprintf("node %d: endpoints %v without %v", id, peer.Endpoints, want))
		}
	}
	return all
}

// look checks that hearth has what it acknowledged. What was asked for and not answered may have
// been done or not, but nothing between.
func (s *soak) look(open []decision) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	listed, err := s.admin.nodes(ctx)
	if err != nil {
		s.fail("the list of nodes: %w", err)
		return
	}
	found, err := s.admin.others(ctx)
	if err != nil {
		s.fail("users, keys, records and policy: %w", err)
		return
	}
	byMachine := map[string]*listedNode{}
	taken := map[string]string{}
	for i := range listed {
		node := &listed[i]
		byMachine[node.MachineKey] = node
		for _, one := range append(slices.Clone(node.IPAddresses), node.GivenName) {
			if owner := taken[one]; owner != "" {
				s.fail("nodes %s and %s both have %s", owner, node.ID, one)
			}
			taken[one] = node.ID
		}
		s.checkAddresses(node)
	}
	known := map[string]bool{}
	for slot, m := range s.members {
		m.mu.Lock()
		var node *listedNode
		if m.device != nil {
			machine := m.device.machine.Public().String()
			known[machine], node = true, byMachine[machine]
		}
		m.mu.Unlock()
		s.checkPlace(slot, node, open)
	}
	s.mu.Lock()
	fading := s.fading
	s.mu.Unlock()
	for machine, node := range byMachine {
		if !known[machine] && !fading[machine] {
			s.fail("node %s (%s) is there, although it was deleted", node.ID, node.GivenName)
		}
	}
	s.checkOthers(found)
}

func (s *soak) checkAddresses(node *listedNode) {
	now := strings.Join(node.IPAddresses, " ")
	if before := s.named(s.addresses, node.MachineKey); before != "" && before != now {
		s.fail("node %s has the addresses %s instead of %s", node.ID, now, before)
	}
	s.name(s.addresses, node.MachineKey, now)
}

func (s *soak) checkPlace(slot int, node *listedNode, open []decision) {
	p := s.place(slot)
	allowed := []facts{p.facts}
	for _, d := range open {
		if d.slot == slot {
			allowed = append(allowed, p.after(d).facts)
		}
	}
	var is facts
	if node != nil {
		is = node.facts()
	}
	fits := func(f facts) bool { return f.agreesWith(is) }
	if !slices.ContainsFunc(allowed, fits) {
		s.fail("device %d is %+v instead of one of %+v", slot, is, allowed)
	}
}

func (s *soak) checkOthers(is others) {
	s.mu.Lock()
	want := others{users: append([]string{"alice", "ben"}, s.want.users...), records: slices.Clone(s.want.records), policy: policyText(s.want.policy)}
	for name, id := range s.keys {
		if !strings.HasPrefix(name, "key-") || slices.Contains(s.want.keys, name) {
			want.keys = append(want.keys, id)
		}
	}
	s.mu.Unlock()
	for what, lists := range map[string][2][]string{
		"users": {is.users, want.users}, "DNS records": {is.records, want.records}, "preauth keys": {is.keys, want.keys},
		"policies": {{is.policy}, {want.policy}},
	} {
		slices.Sort(lists[1])
		if !slices.Equal(lists[0], lists[1]) {
			s.fail("the %s are %q instead of %q", what, lists[0], lists[1])
		}
	}
}

// waitForFading waits until all ephemeral devices that have gone are deleted.
func (s *soak) waitForFading() {
	err := within(patience, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		listed, err := s.admin.nodes(ctx)
		if err != nil {
			return err
		}
		for _, node := range listed {
			if s.fading[node.MachineKey] {
				return fmt.Errorf("the ephemeral node %s has gone and is not deleted", node.ID)
			}
		}
		return nil
	})
	if err != nil {
		s.fail("%w", err)
	}
}

var logLine = regexp.MustCompile(`(?m)^\S+ +(WARN|ERROR) +(.*)$`)

// readLog counts the warnings and errors of the hearth that has ended, and what is no log line at all.
func (s *soak) readLog() {
	text := s.child.log.String()
	if at := strings.Index(text, "panicked"); at >= 0 {
		s.fail("hearth panicked: %.500s", text[at:])
	}
	for _, match := range logLine.FindAllStringSubmatch(text, -1) {
		// The words up to the first number or name are enough to tell them apart.
		words := strings.FieldsFunc(match[2], func(r rune) bool { return strings.ContainsRune("0123456789=\"", r) })
		if len(words) > 0 {
			s.warnings[match[1]+" "+strings.TrimSpace(words[0])]++
		}
	}
}

func (s *soak) report() {
	var sent, returned, logins int64
	for _, p := range s.pairs {
		sent, returned, logins = sent+p.sent.Load(), returned+p.returned.Load(), logins+p.logins.Load()
	}
	fifths := s.whole.file.fifths()
	strays := 0
	for _, m := range s.members {
		if m.device != nil {
			strays += m.device.observer.strays
		}
	}
	fmt.Println()
	report("database file, fifths of all", "%d → %d KB", fifths[2]/1000, fifths[4]/1000)
	report("relay", "%d packets sent, %d came back, %d logins", sent, returned, logins)
	report("streams that ended by themselves", "%d", s.dropped.Load())
	report("patches for unknown nodes", "%d", strays)
	if s.backups {
		report("backups", "%d, the last of %d KB", len(s.backedUp), s.backedUp[len(s.backedUp)-1]/1000)
	}
	for _, line := range slices.Sorted(maps.Keys(s.warnings)) {
		report("in the log", "%d times: %s", s.warnings[line], line)
	}
	report("faults", "%d", len(s.faults))
}
