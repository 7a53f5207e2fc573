/** How to reach a PostgreSQL server: plain facts that can be handed to another process, and the URLs made of them. */

export interface PostgresFacts {
  port: number;
  user: string;
  password: string;
  dataDirectory: string;
  /** Folder with psql and pg_dump of the server's own version. */
  binDirectory: string;
  major: number;
  /** `15.14` */
  version: string;
}

export interface UrlOptions {
  /** Default: the superuser. */
  user?: string;
  password?: string;
  params?: Readonly<Record<string, string>>;
}

export interface PostgresHandle extends PostgresFacts {
  /** A connection URL with the password in it. @param database default `postgres`. */
  url(database?: string, options?: UrlOptions): string;
  /** The superuser's URL of the database `postgres`. */
  adminUrl: string;
}

export function postgresHandle(facts: PostgresFacts): PostgresHandle {
  const url = (database = 'postgres', options: UrlOptions = {}): string => {
    const {user = facts.user, password = facts.password, params = {}} = options;
    const address = `127.0.0.1:${facts.port}/${encodeURIComponent(database)}`;
    // libpq reads a plus sign as itself, not as a space.
    const query = new URLSearchParams(params).toString().replaceAll('+', '%20');
    return `postgresql://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${address}${query && `?${query}`}`;
  };
  return {...facts, url, adminUrl: url()};
}
