package conf

const describes = false
