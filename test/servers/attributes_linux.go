package servers

import "syscall"

// attributes: a server ends with the test that started it, however that ends.
func attributes(s *Server) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: s.quit}
	if s.account != nil {
		uid, gid := s.ids()
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return a
}
