// VFIOUser
