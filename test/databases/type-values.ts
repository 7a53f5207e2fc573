/** Values at the edges of every built-in type that a column can have, as literals. */

const ranges = {
  int4range: ['empty', '(,)', '[1,1]', '[-2147483648,2147483647)', '(,5]', '[5,)'],
  int8range: ['empty', '(,)', '[-9223372036854775808,9223372036854775807)'],
  numrange: ['empty', '(,)', '[NaN,NaN]', '(-Infinity,Infinity)', '[1.10,1.1000]', '(0,0.000000000000000000001]'],
  daterange: ['empty', '[4713-01-01 BC,5874897-12-31)', '(-infinity,infinity)', '[today,)'],
  tsrange: ['empty', '[4713-01-01 00:00:00 BC,294276-12-31 23:59:59.999999]', '[-infinity,infinity]'],
  tstzrange: ['empty', '[4713-01-02 00:00:00+00 BC,294276-12-31 23:59:59.999999+00]', '["2021-03-28 02:30:00+02",)'],
};

const multiranges = Object.fromEntries(
  Object.entries(ranges).map(([name, values]) => [
    name.replace(/range$/, 'multirange'),
    [
      '{}',
      ...values.map((value) => `{${value}}`),
      `{${values.filter((value) => value !== '(,)' && value !== '[NaN,NaN]').join(',')}}`,
    ],
  ]),
);

/** Text that is something else to psql, to COPY, or to a terminal. */
const texts = [
  '',
  ' ',
  'NULL',
  '\\N',
  '\\.',
  '\n\\.\n',
  '\\',
  "it''s",
  '"',
  '\t\r\n\b\f\v',
  '\r',
  '\u0001\u001b[2J\u007f',
  'Ärztin 🩺 e\u0301 \u202e \ufeff \uffff \u{10ffff}',
  '$$ $_$ $1',
  'COPY t FROM stdin;',
  'x'.repeat(70_000),
];

/** @param major of the server */
export function typeValues(major: number): Record<string, readonly string[]> {
  return {
    bool: ['t', 'f'],
    bytea: ['', '\\x00', '\\x0a5c2e0a', '\\xff00fe', `\\x${'00ff'.repeat(40_000)}`],
    char: ['', 'a', '\\377', '\\200'],
    name: ['', 'x'.repeat(63), 'Odd "name"'],
    int8: ['-9223372036854775808', '9223372036854775807', '0'],
    int2: ['-32768', '32767'],
    int2vector: ['', '1 -1 32767'],
    int4: ['-2147483648', '2147483647'],
    text: texts,
    bpchar: ['', 'a  ', 'é '],
    varchar: texts,
    oid: ['0', '4294967295'],
    tid: ['(0,0)', '(4294967295,65535)'],
    xid: ['0', '4294967295'],
    ...(major >= 13 ? {xid8: ['0', '18446744073709551615']} : {}),
    cid: ['0', '4294967295'],
    oidvector: ['', '1 4294967295'],
    json: ['null', '{"a": 1,  "a": 2}', '"\\u0041"', '[]', '{"deep": [[[[{"é": "\\n"}]]]]}', ' 1e400 '],
    jsonb: ['null', '{"a": 1, "a": 2}', '"\\u0041"', '{}', '[1e400, -0, 1.10]', '{"": {"é": "\\\\N"}}'],
    jsonpath: ['$', 'strict $.a[*] ? (@.b > 1)', 'lax $."a b"'],
    xml: ['', '<a/>', 'text <b>&amp;</b>', '<?xml version="1.0"?><a>\n\\.\n</a>', '<!-- c --><é/>'],
    point: ['(0,-0)', '(Infinity,-Infinity)', '(NaN,1e-300)', '(1e300,0.1)'],
    lseg: ['[(0,0),(1,1)]', '[(-0,NaN),(Infinity,0)]'],
    path: ['[(0,0),(1,1)]', '((0,0),(1,1),(2,0))'],
    box: ['(1,1),(0,0)', '(Infinity,1),(0,-Infinity)'],
    polygon: ['((0,0),(1,1),(2,0))', '((0,0))'],
    line: ['{1,2,3}', '{-1,0,0}'],
    circle: ['<(0,0),0>', '<(1,-1),Infinity>'],
    float4: ['NaN', 'Infinity', '-Infinity', '-0', '3.4028235e38', '1e-45', '0.1'],
    float8: ['NaN', 'Infinity', '-Infinity', '-0', '1.7976931348623157e308', '4.9e-324', '0.1', '1e23'],
    numeric: [
      'NaN',
      ...(major >= 14 ? ['Infinity', '-Infinity'] : []),
      '0.00',
      '-0',
      '1.10',
      `${'9'.repeat(1000)}.${'1'.repeat(1000)}`,
      `0.${'0'.repeat(16_000)}1`,
    ],
    money: ['-92233720368547758.08', '92233720368547758.07', '0', '$1,234.50'],
    date: ['4713-01-01 BC', '0001-01-01 BC', '0001-01-01', '5874897-12-31', 'infinity', '-infinity', '2024-02-29'],
    time: ['00:00:00', '24:00:00', '23:59:59.999999'],
    timetz: ['00:00:00+15:59:59', '24:00:00-15:59:59', '23:59:59.999999+00'],
    timestamp: ['4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999', 'infinity', '-infinity', '2000-01-01'],
    timestamptz: [
      '4713-01-02 00:00:00+00 BC',
      '294276-12-31 23:59:59.999999+00',
      'infinity',
      '-infinity',
      '1883-11-18 12:03:58-04:56:02',
    ],
    interval: [
      '0',
      '-178000000 years',
      '178000000 years',
      '1 mon -1 day +23:59:59.999999',
      '-1 mon +1 day -00:00:00.000001',
      '2147483647 days',
      '2562047788:00:54.775807',
    ],
    macaddr: ['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'],
    macaddr8: ['00:00:00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff:ff:ff'],
    inet: [
      '0.0.0.0/0',
      '255.255.255.255',
      '::',
      'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
      '::ffff:1.2.3.4/96',
      '10.1.2.3/8',
    ],
    cidr: ['0.0.0.0/0', '10.0.0.0/8', '::/0', '2001:db8::/32'],
    bit: ['0', '1'],
    varbit: ['', '0', '1'.repeat(1000)],
    uuid: ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'],
    pg_lsn: ['0/0', 'FFFFFFFF/FFFFFFFF'],
    txid_snapshot: ['1:1:', '10:20:10,14,15'],
    pg_snapshot: ['1:1:', '10:20:10,14,15'],
    tsvector: ['', "'a':1A,2B,3C 'b'", "'it''''s' '\\\\\\\\' 'ä b':16383"],
    tsquery: ['', "!'a' & ( 'b':*AB | 'c' <-> 'd' )", "'it''''s'"],
    refcursor: ['', 'c'],
    gtsvector: [],
    aclitem: ['=r/"loma"', 'loma=arwdDxt/loma'],
    regclass: ['pg_class', '-', '4294967295'],
    regcollation: ['"C"', '-'],
    regconfig: ['simple', '-'],
    regdictionary: ['simple', '-'],
    regnamespace: ['pg_catalog', '-'],
    regoper: ['pg_catalog.||/', '0'],
    regoperator: ['+(integer,integer)', '0'],
    regproc: ['now', '-'],
    regprocedure: ['lower(text)', '-'],
    regrole: ['loma', '-'],
    regtype: ['integer', '"char"', 'integer[]', '-'],
    ...ranges,
    ...(major >= 14 ? multiranges : {}),
  };
}

const literal = (text: string) => `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** A table a type, with its values, NULL, and arrays: empty, of other bounds, of two dimensions, with NULLs. */
export function typeTables(major: number): string {
  const tables = Object.entries(typeValues(major)).map(([type, values]) => {
    const column = `pg_catalog."${type}"`;
    const array = `ARRAY[NULL, ${values.map((value) => `${literal(value)}::${column}`).join(', ') || 'NULL'}]::${column}[]`;
    // The one type whose arrays are written with another character.
    const pair = type === 'box' ? 'NULL;NULL' : 'NULL,NULL';
    const rows = [...values.map(literal), 'NULL'].map((value) => `(${value}::${column}, NULL::${column}[])`);
    return `CREATE TABLE types."of ${type}" (id int GENERATED ALWAYS AS IDENTITY, value ${column}, list ${column}[]);
      INSERT INTO types."of ${type}" (value, list) VALUES ${rows.join(', ')}, (NULL, '{}'), (NULL, ${array}),
        (NULL, '[-3:-2]={${pair}}'), (NULL, '[2:2][0:1]={{${pair}}}');`;
  });
  return `CREATE SCHEMA types; ${tables.join('\n')}`;
}

/** The types that a column may have and that have no values here. */
export const unknownTypes = (major: number) => `SELECT coalesce(string_agg(typname, ' '), '') FROM pg_catalog.pg_type t
  WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typname !~ '^_'
    AND typname NOT IN (${Object.keys(typeValues(major))
      .map((name) => `'${name}'`)
      .join(', ')})
    AND typname NOT IN ('pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'pg_dependencies', 'pg_mcv_list', 'pg_ndistinct', 'pg_node_tree')`;
