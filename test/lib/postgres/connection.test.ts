import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {pgDumpArguments} from '../../../src/lib/dump/pg-dump.ts';
import {
  type Connection,
  clientEnvironment,
  connectionArgument,
  describeConnection,
  parseConnectionUrl,
  withDatabase,
} from '../../../src/lib/postgres/connection.ts';

function parsed(url: string): Connection {
  const connection = parseConnectionUrl(url);
  if (typeof connection === 'string') throw new Error(`${url} was refused: ${connection}`);
  return connection;
}

const login = (url: string) => {
  const {host, port, user, database, password} = parsed(url);
  return [user, password?.reveal(), host, port, database];
};

describe('a connection URL', () => {
  it.each([
    ['postgresql://ann:secret@db.example.com:5433/clinic', ['ann', 'secret', 'db.example.com', '5433', 'clinic']],
    ['postgres://ann:secret@db.example.com/clinic', ['ann', 'secret', 'db.example.com', '', 'clinic']],
    ['  postgres://ann:secret@db/clinic\n', ['ann', 'secret', 'db', '', 'clinic']],
    ['postgresql://ann@db/clinic', ['ann', undefined, 'db', '', 'clinic']],
    ['postgresql://ann:@db/clinic', ['ann', '', 'db', '', 'clinic']],
    ['postgresql://db/clinic', ['', undefined, 'db', '', 'clinic']],
    ['postgresql:///clinic', ['', undefined, '', '', 'clinic']],
    ['postgresql://ann@db', ['ann', undefined, 'db', '', 'ann']],
    ['postgresql://ann:s@db/?dbname=clinic', ['ann', 's', 'db', '', 'clinic']],
    ['postgresql://?host=db&port=6000&user=ann&dbname=clinic', ['ann', undefined, 'db', '6000', 'clinic']],
    // A raw password in a query, and one that is given twice.
    ['postgresql://ann@db/clinic?password=a%26b', ['ann', 'a&b', 'db', '', 'clinic']],
    ['postgresql://ann:first@db/clinic?password=second', ['ann', 'second', 'db', '', 'clinic']],
    // IPv6, several hosts, sockets.
    ['postgresql://ann@[::1]:5433/clinic', ['ann', undefined, '::1', '5433', 'clinic']],
    ['postgresql://ann@[2001:db8::1]/clinic', ['ann', undefined, '2001:db8::1', '', 'clinic']],
    ['postgresql://ann@a:1,b:2/clinic', ['ann', undefined, 'a,b', '1,2', 'clinic']],
    ['postgresql://ann@a,b:2,[::1]/clinic', ['ann', undefined, 'a,b,::1', '5432,2,5432', 'clinic']],
    ['postgresql://ann@%2Fvar%2Frun%2Fpostgresql/clinic', ['ann', undefined, '/var/run/postgresql', '', 'clinic']],
    ['postgresql:///clinic?host=/var/run/postgresql', ['', undefined, '/var/run/postgresql', '', 'clinic']],
    // Percent-encoded parts.
    ['postgresql://a%40b:p%40%3A%2F%3F%23%25@db/cl%2Fin', ['a@b', 'p@:/?#%', 'db', '', 'cl/in']],
    ['postgresql://ann:s@db/M%C3%BCnchen', ['ann', 's', 'db', '', 'München']],
    ['postgresql://ann:a+b%2Bc@db/x+y', ['ann', 'a+b+c', 'db', '', 'x+y']],
  ])('%s is read', (url, expected) => {
    expect(login(url)).toEqual(expected);
  });

  it.each([
    'p@ss',
    'p:ss',
    'p/ss',
    'p?ss',
    'p#ss',
    '100%',
    '%zz',
    '@',
    '@:/?#%',
    'a@b/c',
    'a@b/c@d',
    'a@b?c',
    '12/34',
    '1?2',
    'a/b?c#d',
    '/',
    '?',
    '#',
    'x=1&y@z',
    'p@ss/w?rd#%',
  ])('may hold the raw password %s', (password) => {
    for (const tail of ['db:5432/clinic', 'db/clinic', 'db:5432/clinic?sslmode=require']) {
      expect(login(`postgresql://ann:${password}@${tail}`)).toEqual([
        'ann',
        password,
        'db',
        tail.includes('5432') ? '5432' : '',
        'clinic',
      ]);
    }
  });

  it.each([
    ['postgresql://ann:s@db/clinic?application_name=me@home', {PGAPPNAME: 'me@home'}],
    ['postgresql://db:5432/clinic?user=ann@home', {}],
    ['postgresql://ann:s@db/clinic@home', {}],
  ])('may hold an @ in its own right: %s', (url, environment) => {
    expect(parsed(url)).toMatchObject({host: 'db', environment});
  });

  it('built of any user, password and database reads back', () => {
    const text = fc.string({unit: 'binary', minLength: 1}).filter((value) => !value.includes('\0'));
    fc.assert(
      fc.property(
        text,
        fc.option(text, {nil: undefined}),
        text,
        fc.integer({min: 1, max: 65_535}),
        (user, password, database, port) => {
          const auth = encodeURIComponent(user) + (password === undefined ? '' : `:${encodeURIComponent(password)}`);
          const url = `postgresql://${auth}@db.example.com:${port}/${encodeURIComponent(database)}?sslmode=require`;
          expect(login(url)).toEqual([user, password, 'db.example.com', String(port), database]);
        },
      ),
    );
  });

  it('is never shown when it is refused', () => {
    fc.assert(
      fc.property(fc.webUrl({withQueryParameters: true}), fc.string({minLength: 12}), (address, password) => {
        for (const url of [
          address,
          `${address}${password}`,
          `mysql://ann:${password}@db/x`,
          `postgresql://ann:${password}@db:port/x`,
        ]) {
          const result = parseConnectionUrl(url);
          if (typeof result === 'string') expect(result).not.toContain(password);
        }
      }),
    );
  });
});

describe('a URL is refused', () => {
  it.each([
    ['', /must look like postgresql:/],
    ['clinic', /must look like/],
    ['mysql://ann:s@db/clinic', /must look like/],
    ['postgresql:/db/clinic', /must look like/],
    ['host=db dbname=clinic', /must look like/],
    ['postgresql://db:port/clinic', /host or port/],
    ['postgresql://[::1/clinic', /host or port/],
    ['postgresql://db:5432', /names no database/],
    ['postgresql://', /names no database/],
    ['postgresql://ann:a%00b@db/clinic', /NUL/],
    ['postgresql://ann:s@db/cli%00nic', /NUL/],
    ['postgresql://ann:s@db/clinic?options=%00', /NUL/],
  ])('%j', (url, words) => {
    expect(parseConnectionUrl(url)).toEqual(expect.stringMatching(words));
  });
});

describe('parameters of a URL', () => {
  it('go to libpq by environment, or as an argument where there is no variable', () => {
    const connection = parsed(
      'postgresql://ann:s@db/clinic?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=5&options=-c%20statement_timeout%3D0&keepalives_idle=60&tcp_user_timeout=1000',
    );
    expect(connection.environment).toEqual({
      PGSSLMODE: 'verify-full',
      PGSSLROOTCERT: '/etc/ca.pem',
      PGCONNECT_TIMEOUT: '5',
      PGOPTIONS: '-c statement_timeout=0',
    });
    expect(connection.parameters).toMatchObject({keepalives: '1', keepalives_idle: '60', tcp_user_timeout: '1000'});
    expect(connection.warnings).toEqual([]);
  });

  it('keep a plus sign, as libpq does', () => {
    const {environment} = parsed('postgresql://db/clinic?application_name=a+b%2Bc&options=-c+x');
    expect(environment).toEqual({PGAPPNAME: 'a+b+c', PGOPTIONS: '-c+x'});
  });

  it('keep an equals sign, and text that is not percent-encoding', () => {
    const {environment} = parsed('postgresql://db/clinic?options=-cwork_mem=1MB&application_name=100%');
    expect(environment).toEqual({PGOPTIONS: '-cwork_mem=1MB', PGAPPNAME: '100%'});
  });

  it('of which libpq takes the last of a name', () => {
    expect(parsed('postgresql://db/clinic?sslmode=disable&sslmode=require').environment).toEqual({
      PGSSLMODE: 'require',
    });
  });

  it.each([
    'schema=public',
    'pgbouncer=true',
    'connection_limit=5',
    'pool_timeout=0',
    'sslaccept=strict',
    'statement_cache_size=0',
    'uselibpqcompat=true',
    'toString=1',
  ])('that ORMs write are dropped with a warning that names them: %s', (parameter) => {
    const connection = parsed(`postgresql://ann:s3cr3t@db/clinic?${parameter}&sslmode=require`);
    const name = parameter.split('=')[0] ?? '';
    expect(connection.warnings.at(-1)).toContain(name);
    expect(connection.warnings.join()).not.toContain('s3cr3t');
    expect(connection.environment).toEqual({PGSSLMODE: 'require'});
    expect(connectionArgument(connection)).not.toContain(name);
  });

  it('take ssl=true for sslmode=require, but not over a given sslmode', () => {
    expect(parsed('postgresql://db/clinic?ssl=true').environment).toEqual({PGSSLMODE: 'require'});
    expect(parsed('postgresql://db/clinic?ssl=true&sslmode=verify-full').environment).toEqual({
      PGSSLMODE: 'verify-full',
    });
    expect(parsed('postgresql://db/clinic?sslmode=verify-full&ssl=true').environment).toEqual({
      PGSSLMODE: 'verify-full',
    });
  });
});

describe('a pooler', () => {
  it.each([
    ['postgresql://ann:s@ep-cool-1-pooler.eu.aws.neon.tech/clinic', /Neon.*ep-cool-1\.eu\.aws\.neon\.tech/],
    ['postgresql://ann:s@aws-0-eu.pooler.supabase.com:6543/postgres', /Supabase.*port 5432/],
    ['postgresql://ann:s@db:6432/clinic', /looks like a connection pooler/],
    ['postgresql://ann:s@db/clinic?pgbouncer=true', /looks like a connection pooler/],
  ])('is named: %s', (url, words) => {
    expect(parsed(url).warnings[0]).toMatch(words);
  });

  it('is not seen in a direct address', () => {
    for (const url of [
      'postgresql://ann:s@pooler-db:5432/clinic',
      'postgresql://ann:s@aws-0-eu.pooler.supabase.com:5432/postgres',
    ]) {
      expect(parsed(url).warnings).toEqual([]);
    }
  });
});

describe('what a client program gets', () => {
  const secrets = {
    PHI_ENCRYPTION_KEY: 'ab'.repeat(32),
    PHI_ENCRYPTION_KEYS_PREVIOUS: 'cd'.repeat(32),
    CLOUDFLARE_R2_ACCESS_KEY_ID: 'r2-access-key',
    CLOUDFLARE_R2_SECRET_ACCESS_KEY: 'r2-secret-key',
    DATABASE_URL: 'postgresql://ann:other-password@db/clinic',
    TEST_DATABASE_URL: 'postgresql://ann:test-password@db/clinic',
    PGPASSWORD: 'password-of-another-program',
    PGHOST: 'host-of-another-program',
    PGOPTIONS: '-c search_path=evil',
    AWS_SECRET_ACCESS_KEY: 'aws-secret',
    NODE_OPTIONS: '--inspect',
    GITHUB_TOKEN: 'github-token',
  };

  it('in its environment is the connection, English messages, and none of our secrets', () => {
    const environment = clientEnvironment(parsed('postgresql://ann:p%40ss@db:5433/clinic?sslmode=require'), {
      ...secrets,
      PATH: '/usr/bin',
      HOME: '/home/ann',
      LC_ALL: 'de_DE.UTF-8',
      PGTZ: 'Asia/Tokyo',
    });
    expect(environment).toMatchObject({
      PATH: '/usr/bin',
      HOME: '/home/ann',
      PGHOST: 'db',
      PGPORT: '5433',
      PGUSER: 'ann',
      PGDATABASE: 'clinic',
      PGPASSWORD: 'p@ss',
      PGSSLMODE: 'require',
      LC_ALL: 'C',
      PGTZ: 'UTC',
    });
    for (const [name, value] of Object.entries(secrets)) {
      expect(Object.values(environment).join('\n')).not.toContain(value);
      if (!name.startsWith('PG')) expect(environment).not.toHaveProperty(name);
    }
  });

  it('pins the settings that change the text of a dump, after what the URL asks for', () => {
    const {PGOPTIONS} = clientEnvironment(parsed('postgresql://db/clinic?options=-c%20bytea_output%3Descape'), {});
    expect(PGOPTIONS).toMatch(/^-c bytea_output=escape .*-c bytea_output=hex .*-c standard_conforming_strings=on/);
  });

  it('has no password where the URL has none, so that a password file works', () => {
    const environment = clientEnvironment(parsed('postgresql://ann@db/clinic'), {PGPASSFILE: '/home/ann/.pgpass'});
    expect(environment).not.toHaveProperty('PGPASSWORD');
    expect(environment).toMatchObject({PGPASSFILE: '/home/ann/.pgpass'});
  });

  it('on its command line never is the password, wherever in the URL it stood', () => {
    fc.assert(
      fc.property(
        fc.string({minLength: 6}).filter((text) => !text.includes('\0') && !/^[\w .=-]*$/.test(text)),
        (password) => {
          for (const url of [
            `postgresql://ann:${encodeURIComponent(password)}@db/clinic?keepalives_idle=9`,
            `postgresql://ann@db/clinic?password=${encodeURIComponent(password)}`,
            `postgresql://ann@db/clinic?sslpassword=${encodeURIComponent(password)}`,
          ]) {
            const connection = parsed(url);
            const line = [
              connectionArgument(connection),
              ...pgDumpArguments({connection, excludeTableData: ['log_*']}),
            ].join(' ');
            expect(line).not.toContain(password);
            expect(line).not.toContain(encodeURIComponent(password));
            expect(describeConnection(connection)).toBe('db/clinic');
            expect(JSON.stringify(connection)).not.toContain(JSON.stringify(password).slice(1, -1));
          }
        },
      ),
    );
  });

  it('as an argument is quoted for libpq', () => {
    expect(connectionArgument(parsed("postgresql://db/clinic?keepalives_idle=3'0%5C"))).toContain(
      "keepalives_idle='3\\'0\\\\'",
    );
  });
});

describe('pg_dump', () => {
  it('is asked for a plain dump that replaces what is there, waits a minute for locks, and never asks for a password', () => {
    const connection = parsed('postgresql://ann:s@db/clinic');
    expect(pgDumpArguments({connection, excludeTableData: ['log_*', 'public."x y"']})).toEqual([
      '--format=plain',
      '--clean',
      '--if-exists',
      '--no-owner',
      '--no-privileges',
      '--lock-wait-timeout=60000',
      '--no-password',
      '--exclude-table-data=log_*',
      '--exclude-table-data=public."x y"',
      expect.stringMatching(/^--dbname=keepalives='1' keepalives_idle='30'/),
    ]);
  });
});

describe('the same server with another database', () => {
  it('keeps everything else', () => {
    const connection = parsed('postgresql://ann:s@db:5433/clinic?sslmode=require');
    expect(withDatabase(connection, 'scratch')).toEqual({...connection, database: 'scratch'});
    expect(describeConnection(withDatabase(connection, 'scratch'))).toBe('db:5433/scratch');
    expect(describeConnection(parsed('postgresql:///clinic'))).toBe('local socket/clinic');
  });
});
