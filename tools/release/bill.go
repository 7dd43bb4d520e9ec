package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

const billFile = "inlet.cdx.json"

// The bill of materials has the form of CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). There are programs that write one
// from a Go binary, but none of them reads a wasm module.
type bill struct {
	Schema       string       `json:"$schema"`
	BOMFormat    string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref     string `json:"bom-ref"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

// writeBill writes what each built file of a folder consists of.
func writeBill(dir, version string) error {
	all, err := sums(dir)
	if err != nil {
		return err
	}
	b := newBill(version)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		info, err := buildInfo(text)
		if errors.Is(err, errNotGo) {
			continue // the schema
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.add(name, all[name], info)
	}
	b.finish()
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, billFile), append(text, '\n'), 0o644)
}

func newBill(version string) *bill {
	self := "pkg:golang/" + module + "@" + version
	return &bill{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{component{Ref: self, Type: "application", Name: module, Version: version, PURL: self}},
	}
}

// add adds a file and the modules that are linked into it.
func (b *bill) add(file, sum string, info *debug.BuildInfo) {
	ref := "file:" + file
	b.Components = append(b.Components, component{
		Ref: ref, Type: "file", Name: file, Version: b.Metadata.Component.Version, Hashes: []hash{{"SHA-256", sum}},
	})
	std := strings.TrimPrefix(info.GoVersion, "go")
	on := []string{b.module("std", std, "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		on = append(on, b.module(m.Path, m.Version, m.Sum))
	}
	slices.Sort(on)
	b.Dependencies = append(b.Dependencies, dependency{ref, on})
}

// module adds a module, if it is not there yet, and returns its reference.
func (b *bill) module(path, version, sum string) string {
	ref := "pkg:golang/" + path + "@" + version
	if slices.ContainsFunc(b.Components, func(c component) bool { return c.Ref == ref }) {
		return ref
	}
	c := component{Ref: ref, Type: "library", Name: path, Version: version, PURL: ref}
	// The module's checksum of go.sum: a SHA-256 over the names and checksums of its files.
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:")); err == nil && len(raw) > 0 {
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
	}
	b.Components = append(b.Components, c)
	return ref
}

// finish puts the components in order and says that the whole consists of the files.
func (b *bill) finish() {
	slices.SortFunc(b.Components, func(x, y component) int { return strings.Compare(x.Ref, y.Ref) })
	whole := dependency{Ref: b.Metadata.Component.Ref}
	for _, d := range b.Dependencies {
		whole.On = append(whole.On, d.Ref)
	}
	b.Dependencies = append([]dependency{whole}, b.Dependencies...)
}

// Go's linker puts these marks around what debug.ReadBuildInfo reads. debug/buildinfo finds it in executables only.
var (
	infoStart, _ = hex.DecodeString("3077af0c9274080241e1c107e6d618e6")
	infoEnd, _   = hex.DecodeString("f932433186182072008242104116d8f2")
)

var errNotGo = errors.New("not built by Go")

// buildInfo reads what a built file, wasm modules and libraries among them, says of its modules.
func buildInfo(text []byte) (*debug.BuildInfo, error) {
	for {
		_, rest, found := bytes.Cut(text, infoStart)
		if !found {
			return nil, errNotGo
		}
		said, _, found := bytes.Cut(rest, infoEnd)
		if found && bytes.HasPrefix(said, []byte("path\t")) {
			info, err := debug.ParseBuildInfo(string(said))
			if err == nil && info.GoVersion == "" {
				info.GoVersion = goVersion
			}
			return info, err
		}
		text = rest // the marks alone, as code that knows them has
	}
}
