//! One database's life: wake, serve, stop; its sessions; the directory of all databases.
