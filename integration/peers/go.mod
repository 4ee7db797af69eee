module github.com/shoalkv/shoal/integration/peers

go 1.26.0

require github.com/shoalkv/shoal v0.0.0

replace github.com/shoalkv/shoal => ../..
