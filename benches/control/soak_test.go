package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestTheSameSeedMakesTheSameDecisions(t *testing.T) {
	one, same, other := newPlan(7, 300, 4, 200), newPlan(7, 300, 4, 200), newPlan(8, 300, 4, 200)
	if !reflect.DeepEqual(one, same) {
		t.Error("one seed makes different decisions")
	}
	if reflect.DeepEqual(one, other) {
		t.Error("two seeds make the same decisions")
	}
}

// allBatches are the batches of an epoch, with the changes during which hearth ends.
func allBatches(e *epoch) [][]decision {
	return append(append(append([][]decision{}, e.first...), e.batches...), e.ending.burst)
}

func TestAFiveMinuteSoakDoesEverything(t *testing.T) {
	s := soak{duration: 5 * 60e9}
	count, each := s.epochs()
	done := map[kind]int{}
	ways := map[bool]int{}
	plan := newPlan(1, 300, count, each)
	for i := range plan {
		ways[plan[i].ending.kill]++
		for _, batch := range allBatches(&plan[i]) {
			for _, d := range batch {
				done[d.kind]++
			}
		}
	}
	for k := range weights {
		if done[k] == 0 {
			t.Errorf("nobody does this: %s", k)
		}
	}
	if done[backup] != count || ways[true] == 0 || ways[false] == 0 {
		t.Errorf("%d backups, ends %v", done[backup], ways)
	}
}

func TestDecisionsAreNumberedPossibleAndOfABatchAboutDifferentDevices(t *testing.T) {
	tailnet := newTailnet(40)
	plan := newPlan(3, 40, 6, 300)
	number := 0
	for i := range plan {
		for _, batch := range allBatches(&plan[i]) {
			busy := map[int]bool{}
			for _, d := range batch {
				if number++; d.number != number {
					t.Fatalf("decision %d has the number %d", number, d.number)
				}
				if d.kind.isGlobal() {
					continue
				}
				if busy[d.slot] || !tailnet.places[d.slot].may(d.kind) {
					t.Fatalf("%v: not possible in %v", d, batch)
				}
				busy[d.slot] = true
			}
			for _, d := range batch {
				tailnet.apply(d)
			}
		}
	}
}

func TestALeakIsNotFlatAndNoiseIs(t *testing.T) {
	var leak, noise series
	for second := range 60 {
		noise = append(noise, 30<<20+second*7919%5*(200<<10))
		// What a stream takes, once a second.
		leak = append(leak, 30<<20+second*second/30*(100<<10))
	}
	if err := flatMemory.check("noise", noise); err != nil {
		t.Error(err)
	}
	if err := flatMemory.check("leak", leak); err == nil {
		t.Error("a leak is flat")
	}
}

const firstMap = `{"Node": {"ID": 1, "Name": "own.x."}, "Domain": "x",
	"Peers": [{"ID": 2, "Name": "a.x.", "Endpoints": ["192.0.2.1:1"]}, {"ID": 3, "Name": "b.x."}],
	"UserProfiles": [{"ID": 5, "LoginName": "alice"}], "PacketFilters": {"base": []}}`

// follow applies messages to a new map.
func follow(n *nodes, messages ...string) *observer {
	o := newObserver(n)
	for _, message := range messages {
		o.apply([]byte(message))
	}
	return o
}

func TestAMapThatFollowsIsTheFreshOne(t *testing.T) {
	n := new(nodes)
	o := follow(n, firstMap,
		`{"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["192.0.2.9:1"], "Online": true}], "PeersRemoved": [3]}`,
		`{"PeersChanged": [{"ID": 4, "Name": "c.x."}], "UserProfiles": [{"ID": 6, "LoginName": "ben"}]}`)
	fresh := follow(n, strings.NewReplacer("192.0.2.1:1", "192.0.2.9:1", `"a.x.",`, `"a.x.", "Online": true, `,
		`{"ID": 3, "Name": "b.x."}`, `{"Name": "c.x.", "ID": 4}`).Replace(firstMap))
	if o.err != nil || fresh.err != nil || o.strays != 0 {
		t.Fatal(o.err, fresh.err, o.strays)
	}
	if all := o.differences(fresh); len(all) > 0 {
		t.Error(all)
	}
}

func TestWhatAStreamDidNotTellIsADifference(t *testing.T) {
	for what, change := range map[string][2]string{
		"node 2":             {"192.0.2.1", "192.0.2.2"},
		"node 3":             {`, {"ID": 3, "Name": "b.x."}`, ""},
		"itself":             {"own.x.", "other.x."},
		"UserProfiles 5":     {"alice", "anna"},
		"PacketFilters base": {`"base": []`, `"base": [{"SrcIPs": ["*"]}]`},
		"Domain":             {`"Domain": "x"`, `"Domain": "y"`},
	} {
		n := new(nodes)
		all := follow(n, firstMap).differences(follow(n, strings.Replace(firstMap, change[0], change[1], 1)))
		if len(all) != 1 || !strings.HasPrefix(all[0], what+": ") {
			t.Errorf("%s: %v", what, all)
		}
	}
}

func TestMessagesOfAStreamAreComparedWithThoseOfANewOne(t *testing.T) {
	n := new(nodes)
	message := func(text string) string { return fmt.Sprintf(`{"DisplayMessages": {"*": null, %s}}`, text) }
	o := follow(n, firstMap, message(`"one": {"Title": "1"}`), message(`"two": {"Title": "2"}`))
	if all := o.messageDifferences(follow(n, firstMap, message(`"two": {"Title": "2"}`))); len(all) > 0 {
		t.Error(all)
	}
	if all := o.messageDifferences(follow(n, firstMap)); len(all) != 1 {
		t.Error(all)
	}
}
