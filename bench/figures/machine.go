package figures

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Machine describes, in one line, where and when the figures were measured: system, cores, their model, and how busy the
// machine was before (load average of one minute).
func Machine() string {
	parts := []string{
		runtime.GOOS + "/" + runtime.GOARCH,
		fmt.Sprintf("%d CPUs%s", runtime.NumCPU(), cpuModel()),
		runtime.Version(),
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ := strings.Cut(string(text), " ")
		parts = append(parts, "load "+load)
	}
	return strings.Join(append(parts, time.Now().UTC().Format(time.DateOnly)), ", ")
}

// cpuModel is " (model)" if the system reports it (proc(5), cpuinfo).
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return " (" + strings.TrimSpace(value) + ")"
		}
	}
	return ""
}
