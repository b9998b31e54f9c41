// The command derp-bench compares relays on one machine: hearth, the official
// derper, and a loop that copies bytes without any protocol. All are loaded
// by the official client, in turns, so that what else the machine does
// disturbs them alike. The times are processor time of the relay's process.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	hearth := flag.String("hearth", "", "`program` hearth")
	relay := flag.String("relay", "", "`program` of derp/examples/relay.rs")
	derper := flag.String("derper", "", "`program` derper, the official relay")
	floor := flag.String("floor", "", "`program` floor")
	rounds := flag.Int("rounds", 3, "how often each is measured; the median counts")
	seconds := flag.Float64("seconds", 1, "length of one measurement")
	what := flag.String("what", "throughput,trips,loss,memory", "what to measure")
	pairs := flag.String("pairs", "1,4,8", "numbers of pairs")
	sizes := flag.String("sizes", "100,1280,8192", "packet sizes in bytes")
	idle := flag.String("idle", "2000,10000", "numbers of idle connections")
	only := flag.String("only", "", "only contestants with this in their name")
	flag.Parse()

	b := bench{rounds: *rounds, length: time.Duration(*seconds * float64(time.Second))}
	for _, c := range contestants(*hearth, *relay, *derper, *floor) {
		if strings.Contains(c.name, *only) {
			b.contestants = append(b.contestants, c)
		}
	}
	for part := range strings.SplitSeq(*what, ",") {
		switch part {
		case "throughput":
			b.throughput(numbers(*pairs), numbers(*sizes))
		case "trips":
			b.trips()
		case "loss":
			b.loss()
		case "memory":
			b.memory(numbers(*idle))
		default:
			log.Fatalf("-what: unknown part %q", part)
		}
	}
}

func numbers(list string) []int {
	var all []int
	for word := range strings.SplitSeq(list, ",") {
		number, err := strconv.Atoi(word)
		if err != nil {
			log.Fatal(err)
		}
		all = append(all, number)
	}
	return all
}

type bench struct {
	contestants []contestant
	rounds      int
	length      time.Duration
}

// each starts every contestant and runs measure on it.
func (b *bench) each(measure func(index int, c contestant, p *process, address string) error) {
	for index, c := range b.contestants {
		if err := once(index, c, measure); err != nil {
			log.Printf("%s: %v", c.name, err)
		}
	}
}

func once(index int, c contestant, measure func(int, contestant, *process, string) error) error {
	dir, err := os.MkdirTemp("", "derp-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, address, err := c.start(dir)
	if err != nil {
		return err
	}
	defer p.stop()
	return measure(index, c, p, address)
}

func (b *bench) throughput(pairs, sizes []int) {
	fmt.Printf("\nAt full speed, %d packets under way for each pair (packets/s, processor time of the relay for each packet)\n", window)
	for _, size := range sizes {
		for _, count := range pairs {
			results := make([][]rate, len(b.contestants))
			for range b.rounds {
				b.each(func(i int, c contestant, p *process, address string) error {
					result, err := throughput(c, p, address, count, size, pace{}, b.length)
					if err == nil {
						results[i] = append(results[i], result)
					}
					return err
				})
			}
			for i, c := range b.contestants {
				if len(results[i]) == 0 {
					continue
				}
				lost := int64(0)
				for _, r := range results[i] {
					lost += r.lost
				}
				fmt.Printf("%5d bytes %d pairs  %-20s %8.0f/s  %6.2f µs  lost %d\n", size, count, c.name,
					median(results[i], func(r rate) float64 { return r.perSecond }),
					median(results[i], func(r rate) float64 { return r.cpu.Seconds() * 1e6 }), lost)
			}
		}
	}
}

func (b *bench) loss() {
	const pairs, perPair = 4, 2000
	fmt.Printf("\nBelow saturation: %d pairs, each %d packets each second, evenly or many at once\n", pairs, perPair)
	for _, load := range []struct{ size, burst int }{{1280, 1}, {1280, 50}, {100, 200}} {
		pace := pace{load.burst, time.Second * time.Duration(load.burst) / perPair}
		results := make([][]rate, len(b.contestants))
		for range b.rounds {
			b.each(func(i int, c contestant, p *process, address string) error {
				result, err := throughput(c, p, address, pairs, load.size, pace, b.length)
				if err == nil {
					results[i] = append(results[i], result)
				}
				return err
			})
		}
		for i, c := range b.contestants {
			if len(results[i]) == 0 {
				continue
			}
			var lost, of int64
			for _, r := range results[i] {
				lost += r.lost
				of += r.of
			}
			fmt.Printf("%5d bytes, %3d at once  %-20s %6.2f µs  lost %d of %d\n", load.size, load.burst, c.name,
				median(results[i], func(r rate) float64 { return r.cpu.Seconds() * 1e6 }), lost, of)
		}
	}
}

func (b *bench) trips() {
	const times, load = 1500, 4000
	type trip struct{ p50, p99 time.Duration }
	fmt.Printf("\nThere and back, 100 bytes: idle, and with %d packets of 1280 bytes each second beside it\n", load)
	for _, beside := range []int{0, load} {
		results := make([][]trip, len(b.contestants))
		for range b.rounds {
			b.each(func(i int, c contestant, _ *process, address string) error {
				p50, p99, err := roundTrips(c, address, times, beside)
				if err == nil {
					results[i] = append(results[i], trip{p50, p99})
				}
				return err
			})
		}
		for i, c := range b.contestants {
			if len(results[i]) == 0 {
				continue
			}
			fmt.Printf("load %4d/s  %-20s p50 %5.0f µs  p99 %5.0f µs\n", beside, c.name,
				median(results[i], func(t trip) float64 { return t.p50.Seconds() * 1e6 }),
				median(results[i], func(t trip) float64 { return t.p99.Seconds() * 1e6 }))
		}
	}
}

func (b *bench) memory(counts []int) {
	fmt.Printf("\nMemory: the process without connections, and each idle connection\n")
	for _, count := range counts {
		b.each(func(_ int, c contestant, p *process, address string) error {
			if c.bare {
				return nil
			}
			each, base, err := idleMemory(c, p, address, count)
			if err != nil {
				return err
			}
			fmt.Printf("%5d idle  %-20s %5.1f MB  %5.1f KB each\n", count, c.name, float64(base)/(1<<20), float64(each)/(1<<10))
			return nil
		})
	}
}

func median[T any](values []T, of func(T) float64) float64 {
	var all []float64
	for _, value := range values {
		all = append(all, of(value))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
