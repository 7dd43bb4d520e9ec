package xds

// Waiting returns how many streams wait for news of a cluster.
func (s *Server) Waiting(cluster string) int { return s.cache.NumWatches(cluster) }
