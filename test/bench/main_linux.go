package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// settings of a run. The defaults are what the bounds are stated for.
type settings struct {
	program   string
	rtpengine string
	rounds    int
	sessions  int
	many      time.Duration
	progress  *log.Logger
}

// A measurement fills in some rows of the table.
type measurement struct {
	name string
	run  func(*settings) ([]row, error)
}

var measurements = []measurement{
	{"commands", commandsPerSecond},
	{"accounting", accountedCalls},
	{"latency", updateLatency},
	{"cpu", cpuPerPacket},
	{"path", processorPerPacket},
	{"memory", memoryPerSession},
	{"many", manyStreams},
	{"walk", walkedTable},
	{"stall", statisticsStall},
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == echoCommand {
		log.Fatal(echo(os.Args[2]))
	}
	if len(os.Args) == 2 && os.Args[1] == burnCommand {
		burn()
	}
	// Threads that play phones must not wait for the one that reads statistics.
	runtime.GOMAXPROCS(runtime.NumCPU() + 4)
	os.Exit(run())
}

func run() int {
	s := settings{progress: log.New(io.Discard, "", log.Ltime)}
	only := flag.String("only", "", "`NAMES` of measurements, separated by commas")
	verbose := flag.Bool("v", false, "tell on stderr what is going on")
	flag.StringVar(&s.program, "program", "bin/mediaproxy", "`FILE` to measure")
	flag.StringVar(&s.rtpengine, "rtpengine", "rtpengine", "`FILE` of the peer")
	flag.IntVar(&s.rounds, "rounds", 3, "turns of each measurement")
	flag.IntVar(&s.sessions, "sessions", 4500, "for memory and stall")
	flag.DurationVar(&s.many, "many", 20*time.Second, "how long many streams run")
	flag.Parse()
	if *verbose {
		s.progress.SetOutput(os.Stderr)
	}
	var wanted []string
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(measurements, func(m measurement) bool { return m.name == name }) {
			fmt.Fprintf(os.Stderr, "bench: there is no measurement %q\n", name)
			return 2
		}
	}
	return measure(&s, wanted)
}

func measure(s *settings, wanted []string) int {
	var rows []row
	failed := false
	for _, m := range measurements {
		if wanted != nil && !slices.Contains(wanted, m.name) {
			continue
		}
		s.progress.Printf("%s", m.name)
		found, err := m.run(s)
		if err != nil {
			found = append(found, row{name: m.name, value: "not measured: " + err.Error(), verdict: fail})
		}
		rows = append(rows, found...)
	}
	for _, r := range rows {
		failed = failed || r.verdict == fail
	}
	printTable(os.Stdout, rows)
	if failed {
		return 1
	}
	return 0
}
