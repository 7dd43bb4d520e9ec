package main

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// TestReadmeHasEveryKey holds the README's example of a configuration to the code that reads it: it has every key, no other one, and
// the defaults, unless the comment in the line says "default".
func TestReadmeHasEveryKey(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	m := regexp.MustCompile("(?s)```yaml\n(listen: .*?)```").FindSubmatch(text)
	require.NotNil(t, m)
	_, err = parseConfig(m[1])
	require.NoError(t, err)
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal(m[1], &document))
	shown := map[string]*yaml.Node{}
	collect("", document.Content[0], shown)
	// The other store of quotas, and the other place of their directory, cannot stand in the same file.
	others := regexp.MustCompile("(?s)```yaml\n(quota:\n.*?)```").FindAllSubmatch(text, -1)
	require.Len(t, others, 2)
	more := map[string]*yaml.Node{}
	for _, one := range others {
		_, err = parseConfig(append(one[1], "pools: [{name: a, eds: a.yaml}]\n"...))
		require.NoError(t, err)
		var other yaml.Node
		require.NoError(t, yaml.Unmarshal(one[1], &other))
		collect("", other.Content[0], more)
	}
	for path, value := range more {
		if shown[path] == nil {
			shown[path] = value
		}
	}

	read := map[string]*conf.Form{}
	described("", conf.Describe(defaultConfig().read), read)
	lines := strings.Split(string(m[1]), "\n")
	for path, form := range read {
		if form.Kind == conf.KindObject || strings.HasPrefix(path, "pools[].scrape.") || path == "quota.store.redis.tls.insecureSkipVerify" {
			continue // what a pool says of scraping is said for all above, and TLS that verifies nothing, too
		}
		value := cmp.Or(shown[path], shown["pools[]."+path])
		require.NotNil(t, value, "the README does not show %s", path)
		commented := more[path] == value || regexp.MustCompile(`default|flag`).MatchString(lines[value.Line-1])
		if form.Default != "" && !commented && shown[path] != nil && !strings.HasPrefix(path, "pools") {
			require.Equal(t, form.Default, value.Value, path)
		}
	}
	for path := range shown {
		require.Contains(t, read, path, "the README shows a key that is not read")
	}
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// collect finds the values of a document by path.
func collect(path string, n *yaml.Node, into map[string]*yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			own := join(path, n.Content[i].Value)
			into[own] = n.Content[i+1]
			collect(own, n.Content[i+1], into)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			collect(path+"[]", item, into)
		}
	}
}

// described finds the forms of values by path.
func described(path string, f *conf.Form, into map[string]*conf.Form) {
	for _, k := range f.Keys {
		into[join(path, k.Name)] = &k.Form
		described(join(path, k.Name), &k.Form, into)
	}
	if f.Item != nil && slices.Contains([]conf.Kind{conf.KindList, conf.KindObject}, f.Kind) {
		described(path+"[]", f.Item, into)
	}
}
