package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// draw draws the mutants of a group: first places, so that a place with several changes is not more likely, then one of
// the changes. The draw of one group does not depend on the others.
func draw(root string, g group, at string, seed uint64, count int) ([]*mutant, error) {
	var places [][]*mutant
	for _, pkg := range g.packages {
		files, err := sources(root, pkg)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			source, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				return nil, err
			}
			found, err := mutants(pkg, file, source)
			if err != nil {
				return nil, err
			}
			found = slices.DeleteFunc(found, func(m *mutant) bool { return !strings.Contains(m.File+" "+m.Func, at) })
			places = append(places, byPlace(found)...)
		}
	}
	name := fnv.New64a()
	_, _ = name.Write([]byte(g.name))
	chance := rand.New(rand.NewPCG(seed, name.Sum64()))
	chance.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	var drawn []*mutant
	for _, ways := range places[:min(count, len(places))] {
		drawn = append(drawn, ways[chance.IntN(len(ways))])
	}
	return drawn, nil
}

// byPlace groups the mutants that begin at the same byte.
func byPlace(found []*mutant) (places [][]*mutant) {
	for i, m := range found {
		if i == 0 || m.start != found[i-1].start {
			places = append(places, nil)
		}
		last := &places[len(places)-1]
		*last = append(*last, m)
	}
	return places
}

// sources are the files of a package that are built here, as paths below the root.
func sources(root, pkg string) ([]string, error) {
	cmd := exec.Command("go", "list", "-json=Dir,GoFiles,CgoFiles", pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pkg, err)
	}
	var listed struct {
		Dir               string
		GoFiles, CgoFiles []string
	}
	if err := json.Unmarshal(out, &listed); err != nil {
		return nil, err
	}
	var files []string
	for _, name := range append(listed.GoFiles, listed.CgoFiles...) {
		rel, err := filepath.Rel(root, filepath.Join(listed.Dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, rel)
	}
	return files, nil
}
