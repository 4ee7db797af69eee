package explore

func (x *explorer) checkLive(st *state) string { return "" }
