"""Where finished steps are kept: entries on a local folder, NFS or an object store, claimed by leases, checked on read."""
