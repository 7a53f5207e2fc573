/** PostgreSQL connection URLs, read the way their writers meant them, and handed to libpq without an argument that shows a secret. */
import {Secret} from '../secret.ts';

/** Where a database is, and how to log in there. Text that may be shown is separate from the password. */
export interface Connection {
  /** Host name or names, comma-separated, as libpq's PGHOST takes them; empty for the local default. */
  host: string;
  port: string;
  user: string;
  database: string;
  password: Secret | undefined;
  /** libpq parameters that have an environment variable, by that variable's name. */
  environment: Readonly<Record<string, string>>;
  /** libpq parameters that have none (keepalives and the like); never a secret. */
  parameters: Readonly<Record<string, string>>;
  /** Words for the operator: parameters that were dropped, poolers that were recognised. */
  warnings: readonly string[];
}

/**
 * libpq's parameters that have an environment variable (PostgreSQL 18 manual, 32.15). Names that ORMs write and libpq
 * refuses (`schema`, `pgbouncer`, `connection_limit`, …) are in neither list.
 */
const environmentNames: Readonly<Record<string, string>> = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  passfile: 'PGPASSFILE',
  require_auth: 'PGREQUIREAUTH',
  channel_binding: 'PGCHANNELBINDING',
  service: 'PGSERVICE',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
  sslmode: 'PGSSLMODE',
  sslnegotiation: 'PGSSLNEGOTIATION',
  sslcompression: 'PGSSLCOMPRESSION',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslcertmode: 'PGSSLCERTMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcrl: 'PGSSLCRL',
  sslcrldir: 'PGSSLCRLDIR',
  sslsni: 'PGSSLSNI',
  requirepeer: 'PGREQUIREPEER',
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
  gssencmode: 'PGGSSENCMODE',
  krbsrvname: 'PGKRBSRVNAME',
  gsslib: 'PGGSSLIB',
  gssdelegation: 'PGGSSDELEGATION',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  load_balance_hosts: 'PGLOADBALANCEHOSTS',
};

/** libpq's parameters without an environment variable that may be given. */
const parameterNames = new Set([
  'keepalives',
  'keepalives_idle',
  'keepalives_interval',
  'keepalives_count',
  'tcp_user_timeout',
]);

/** Long COPYs through NAT need keepalives: a connection silent for minutes is forgotten by the router between. */
const keepalives = {keepalives: '1', keepalives_idle: '30', keepalives_interval: '10', keepalives_count: '6'};

/**
 * Settings that change the text of a dump, or how a dump's text is read, and that ALTER DATABASE or ALTER ROLE may have
 * changed. Pinned for every session, so that a database and its restored copy dump to the same bytes, and that a
 * `money` value, and a NULL in an array, is read as it was written.
 */
const pinnedOptions =
  '-c bytea_output=hex -c lc_monetary=C -c standard_conforming_strings=on -c quote_all_identifiers=off -c array_nulls=on';

/** Reads a percent-encoded part; text that is not valid percent-encoding was meant as it stands. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

interface UrlParts {
  user: string;
  password: string | undefined;
  hosts: string;
  database: string;
  query: string;
}

/**
 * Splits a connection URL. A password is accepted percent-encoded, as the standard wants it, and also raw with any of
 * `@:/?#%` in it: where the standard reading leaves an `@` that can only be the password's end, the password goes on to
 * the last `@`.
 */
function splitUrl(url: string): UrlParts | undefined {
  const strict = /^postgres(?:ql)?:\/\/(?:([^:@/?#]*)(?::([^@/?#]*))?@)?([^@/?#]*)(?:\/([^?#]*))?(?:\?(.*))?$/s;
  const lenient = /^postgres(?:ql)?:\/\/([^:@/?#]*):(.*)@([^@/?#]*)(?:\/([^?#]*))?(?:\?(.*))?$/s;
  const standard = partsOf(strict.exec(url));
  const raw = partsOf(lenient.exec(url));
  return standard && !(raw && leavesPassword(standard)) ? standard : raw;
}

function partsOf(match: RegExpExecArray | null): UrlParts | undefined {
  if (!match) return undefined;
  const [, user = '', password, hosts = '', database = '', query = ''] = match;
  return {user, password, hosts, database, query};
}

/** Whether the standard reading took the end of a raw password for a path or a query. */
function leavesPassword({password, database, query}: UrlParts): boolean {
  // `user:pass/word@host/db` reads as host `user`; `user:p@ss/word@host/db` as host `ss`.
  if (password === undefined ? database.includes('@') : /@.*\//s.test(database)) return true;
  // A query that is one begins with a name.
  return query.includes('@') && !/^[a-z_]+=/.test(query);
}

/** Reads the parameters as libpq does: a `+` is a plus sign (a form would have a space there), the last of a name counts. */
function parseQuery(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query.split('&')) {
    if (part === '') continue;
    const [name = '', ...value] = part.split('=');
    parameters.set(decode(name), decode(value.join('=')));
  }
  return parameters;
}

function splitHosts(hosts: string): {host: string; port: string} | undefined {
  const names: string[] = [];
  const ports: string[] = [];
  for (const part of hosts.split(',')) {
    const match = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(part);
    if (!match) return undefined;
    names.push(decode((match[1] ?? '').replace(/^\[|\]$/g, '')));
    ports.push(match[2] ?? '');
  }
  const port = ports.every((text) => text === '') ? '' : ports.map((text) => text || '5432').join(',');
  return {host: names.join(','), port};
}

/** What a pooler's address says about itself, with the way round it; transaction pooling breaks pg_dump's session. */
function poolerWarning(host: string, port: string, query: ReadonlyMap<string, string>): string | undefined {
  const direct = 'use the direct address of the database instead';
  if (/-pooler\./.test(host)) {
    return `${host} is Neon's connection pooler; pg_dump needs a session of its own: use ${host.replace('-pooler.', '.')} instead`;
  }
  if (/pooler\.supabase\.com$/.test(host) && port !== '5432') {
    return `${host}:${port} is Supabase's transaction pooler; pg_dump needs a session of its own: ${direct} (db.<project>.supabase.co, port 5432)`;
  }
  if (port === '6543' || port === '6432' || query.get('pgbouncer') === 'true') {
    return `${host}${port ? `:${port}` : ''} looks like a connection pooler; pg_dump needs a session of its own: ${direct}, usually port 5432`;
  }
  return undefined;
}

/**
 * Reads a `postgresql://` URL.
 * @returns the connection, or a text that says what is wrong with the URL (never the URL itself: it holds a password)
 */
export function parseConnectionUrl(url: string): Connection | string {
  const parts = splitUrl(url.trim());
  if (!parts) return 'must look like postgresql://user:password@host:5432/database';
  const address = splitHosts(parts.hosts);
  if (!address) return 'has a host or port that cannot be read; it must look like host:5432';
  const query = parseQuery(parts.query);
  const environment: Record<string, string> = {};
  const parameters: Record<string, string> = {...keepalives};
  const dropped: string[] = [];
  for (const [name, value] of query) {
    const variable = Object.hasOwn(environmentNames, name) ? environmentNames[name] : undefined;
    if (variable) environment[variable] = value;
    else if (parameterNames.has(name)) parameters[name] = value;
    else if (name === 'ssl' && value === 'true') environment.PGSSLMODE ??= 'require';
    else if (name !== 'password') dropped.push(name);
  }
  const take = (variable: string): string | undefined => {
    const value = environment[variable];
    delete environment[variable];
    return value;
  };
  const host = take('PGHOST') ?? address.host;
  const port = take('PGPORT') ?? address.port;
  const user = take('PGUSER') ?? decode(parts.user);
  const database = take('PGDATABASE') ?? (decode(parts.database) || user);
  if (!database && !environment.PGSERVICE) return 'names no database; it must end in /database';
  const password = query.get('password') ?? (parts.password === undefined ? undefined : decode(parts.password));
  const values = Object.values({...environment, ...parameters});
  const control = [host, port, user, database, password ?? '', ...values].some((text) => text.includes('\0'));
  if (control) return 'holds a NUL character';
  const warnings: string[] = [];
  const pooler = poolerWarning(host, port, query);
  if (pooler) warnings.push(pooler);
  if (dropped.length > 0) {
    warnings.push(`dropped from the database URL, because libpq would refuse it: ${[...new Set(dropped)].join(', ')}`);
  }
  return {
    host,
    port,
    user,
    database,
    password: password === undefined ? undefined : new Secret(password),
    environment,
    parameters,
    warnings,
  };
}

/** The same server and login, another database. */
export function withDatabase(connection: Connection, database: string): Connection {
  return {...connection, database, environment: without(connection.environment, 'PGDATABASE')};
}

function without(record: Readonly<Record<string, string>>, name: string): Record<string, string> {
  const {[name]: _, ...rest} = record;
  return rest;
}

/** `host:port/database`, for people; holds no secret. */
export function describeConnection({host, port, database}: Connection): string {
  return `${host || 'local socket'}${port ? `:${port}` : ''}/${database}`;
}

/** Variables of this process that a PostgreSQL program may see. Keys and other secrets of ours are not among them. */
const inheritedNames =
  /^(PATH|HOME|USER|LOGNAME|TMPDIR|TEMP|TMP|SystemRoot|APPDATA|LD_LIBRARY_PATH|DYLD_.*|SSL_CERT_.*|KRB5.*|PGSSL.*|PGPASSFILE|PGSYSCONFDIR|PGSERVICEFILE)$/;

/** The environment for a PostgreSQL client program: the connection, the pinned settings, English messages. */
export function clientEnvironment(
  connection: Connection,
  inherited: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(inherited)) {
    if (value !== undefined && inheritedNames.test(name)) environment[name] = value;
  }
  Object.assign(environment, {PGAPPNAME: 'loma-backup', PGCONNECT_TIMEOUT: '30'}, connection.environment);
  environment.PGOPTIONS = [connection.environment.PGOPTIONS, pinnedOptions].filter(Boolean).join(' ');
  environment.PGTZ = 'UTC';
  environment.LC_ALL = 'C';
  if (connection.host) environment.PGHOST = connection.host;
  if (connection.port) environment.PGPORT = connection.port;
  if (connection.user) environment.PGUSER = connection.user;
  if (connection.database) environment.PGDATABASE = connection.database;
  if (connection.password !== undefined) environment.PGPASSWORD = connection.password.reveal();
  return environment;
}

/**
 * The same for SQL of ours: with an empty search path, what it names without a schema is PostgreSQL's own, operators too, whatever
 * somebody has put into the database (CVE-2018-1058). Not for pg_dump, which finds the tables of a pattern by the role's path.
 */
export function pathlessEnvironment(
  connection: Connection,
  inherited: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const environment = clientEnvironment(connection, inherited);
  return {...environment, PGOPTIONS: `${environment.PGOPTIONS} -c search_path=`};
}

/** The part of the connection that libpq takes only as an argument (`--dbname=`); it holds no secret. */
export function connectionArgument(connection: Connection): string {
  return Object.entries(connection.parameters)
    .map(([name, value]) => `${name}='${value.replace(/[\\']/g, '\\$&')}'`)
    .join(' ');
}
