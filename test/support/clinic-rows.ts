/** The clinic's rows, made by the server out of the md5 sums of their numbers. */

/** Raw: the backslashes are PostgreSQL's. */
const sql = String.raw;

/**
 * For each patient about 2 appointments, 3 encounters, 8 lab results, 1 invoice, 2 lines of the audit log; a document for
 * every fifth.
 */
export function clinicRows(patients: number): string {
  return [helpers, people(patients), visits(patients), results(patients), papers(patients), oddities].join('\n');
}

/** Functions for this connection alone; the planner puts them in place of their calls. */
const helpers = sql`
CREATE FUNCTION pg_temp.digest(text) RETURNS bytea IMMUTABLE LANGUAGE sql AS $$SELECT decode(md5($1), 'hex')$$;
-- An element of the list, chosen by a byte of the digest.
CREATE FUNCTION pg_temp.pick(list text[], digest bytea, place integer) RETURNS text IMMUTABLE LANGUAGE sql AS
  $$SELECT list[1 + get_byte(digest, place) % cardinality(list)]$$;
-- A number below the limit, chosen by two bytes of the digest.
CREATE FUNCTION pg_temp.number(digest bytea, place integer, below integer) RETURNS integer IMMUTABLE LANGUAGE sql AS
  $$SELECT (get_byte(digest, place) * 256 + get_byte(digest, place + 1)) % below$$;
`;

const given = words(
  'Ada Bruno Chiara Dörte Émile Fatima Grzegorz Hüseyin Ines Jörg Kateřina Lê Miloš Noor Ólafur Priya',
);
const family = words(
  "Abel Bąk Çelik Dvořák O'Neill Fuchs Müller-Lüdenscheidt Nguyễn Østergaard Paz Quist Rossi Şahin Tremblay 山田 Иванова",
);

/** What is written about a patient: with everything that COPY has to escape, and a line that looks like its end. */
const phrases = [
  'Patient reports feeling well since the last visit.',
  'Complains of intermittent headache, worse in the morning,',
  'no fever, no night sweats, weight stable.',
  'Blood pressure taken twice, sitting, right arm.',
  'Chest clear on auscultation; heart sounds normal.',
  'Abdomen soft, not tender, bowel sounds present.',
  'Advised to reduce salt and to walk 30 minutes a day.',
  'Continues metformin 500 mg twice daily,',
  'ramipril 5 mg in the morning,',
  'tolerated well without cough or dizziness.',
  'Asked about side effects: "none worth mentioning".',
  'Wound healing by first intention, stitches removed.',
  "Couldn't attend physiotherapy for two weeks.",
  'Referred to cardiology for an echocardiogram.',
  'Spirometry: FEV₁ unchanged, 2.9 ± 0.1 l.',
  'Temperature 37.2 °C, pulse regular.',
  'Vaccination status checked and brought up to date.',
  'Results discussed with the patient and her husband.',
  'Scan stored under \\\\archive\\scans\\thorax.',
  'Plan:\n- repeat bloods in six weeks\n- review medication',
  'History:\tappendectomy\t2009',
  'Dictated, not read.\r\nTyped by the front desk.',
  '\\.\nCOPY public.patients FROM stdin;',
  'Allergie gegen Penicillin bestätigt — kein Amoxicillin!',
  'Prescription renewed for three months; next visit then.',
  'Skin: small naevus on the left shoulder, unchanged.',
  'Patient understands the plan and agrees with it.',
  'Smokes about ten cigarettes a day, wants to stop.',
  'Sleep poor, falls asleep late, wakes at five.',
  'Ankle swelling in the evening, gone by the morning.',
  'Reflexes symmetrical, gait normal, no focal deficit.',
  'Urine dipstick negative; culture not sent.',
];

function people(patients: number): string {
  return sql`
INSERT INTO public.providers (full_name, specialty, licence)
SELECT 'Dr. ' || pg_temp.pick(${given}, d, 0) || ' ' || pg_temp.pick(${family}, d, 1),
  pg_temp.pick(${words('Cardiology Dermatology General Paediatrics Radiology')}, d, 2), md5('licence ' || n)::uuid
FROM generate_series(1, 20) n, LATERAL (SELECT pg_temp.digest('provider ' || n) AS d) x;

INSERT INTO public.patients
  (public_id, given_name, family_name, born, email, phone, address, allergies, preferences, weight_kg, created_at)
SELECT md5('public ' || n)::uuid, pg_temp.pick(${given}, d, 0), pg_temp.pick(${family}, d, 1),
  date '1930-01-01' + pg_temp.number(d, 2, 33000),
  CASE WHEN get_byte(d, 4) > 60 THEN 'p' || n || '.' || substr(md5('mail ' || n), 1, 6) || '@example.org' END,
  CASE WHEN get_byte(d, 5) > 30 THEN '+49 30 ' || 1000000 + pg_temp.number(d, 5, 65536) * 37 END,
  (1 + get_byte(d, 7)) || ' ' || pg_temp.pick(${words('Birkenweg Hauptstraße Lindenallee Marktplatz Seeufer')}, d, 8)
    || E'\n' || 10000 + pg_temp.number(d, 9, 60000) || ' Kleinstadt',
  CASE get_byte(d, 11) % 8 WHEN 0 THEN ARRAY['penicillin'] WHEN 1 THEN ARRAY['latex', 'nuts, "all" kinds', NULL] ELSE '{}' END,
  jsonb_build_object('language', pg_temp.pick(${words('de en fr tr vi')}, d, 12), 'reminder', get_byte(d, 13) % 2 = 0),
  nullif(pg_temp.number(d, 14, 1200), 0) / 10.0 + 3,
  timestamptz '2020-01-01 08:00:00+00' + n % 1400 * interval '1 day' + pg_temp.number(d, 6, 36000) * interval '1 second'
FROM generate_series(1, ${patients}) n, LATERAL (SELECT pg_temp.digest('patient ' || n) AS d) x;
`;
}

function visits(patients: number): string {
  return sql`
INSERT INTO public.appointments (patient_id, provider_id, starts_at, lasts, state, reason)
SELECT 1 + n % ${patients}, 1 + get_byte(d, 0) % 20,
  timestamptz '2023-01-02 08:00:00+00' + pg_temp.number(d, 1, 700) * interval '1 day' + get_byte(d, 3) % 40 * interval '15 minutes',
  (1 + get_byte(d, 4) % 4) * interval '15 minutes',
  (enum_range(NULL::public.visit_state))[1 + get_byte(d, 5) % 5],
  CASE WHEN get_byte(d, 6) > 90 THEN pg_temp.pick(${list(['check-up', 'follow-up', 'acute', 'vaccination', '', '\\N'])}, d, 7) END
FROM generate_series(1, ${2 * patients}) n, LATERAL (SELECT pg_temp.digest('appointment ' || n) AS d) x;

INSERT INTO public.encounters (patient_id, provider_id, seen_at, signature, diagnosis_code, notes)
SELECT 1 + n % ${patients}, 1 + get_byte(d, 0) % 20,
  timestamptz '2023-01-02 08:00:00+00' + pg_temp.number(d, 1, 700) * interval '1 day' + n % 36000 * interval '1 second',
  md5('signature ' || n)::uuid, chr(65 + get_byte(d, 3) % 26) || lpad((get_byte(d, 4) % 100)::text, 2, '0') || '.' || get_byte(d, 5) % 10,
  concat_ws(' ', pg_temp.pick(p, d, 6), pg_temp.pick(p, d, 7), 'RR', 100 + get_byte(d, 8) % 80 || '/' || 60 + get_byte(d, 9) % 40,
    pg_temp.pick(p, d, 10), pg_temp.pick(p, d, 11), pg_temp.pick(p, d, 12), 'Ref.', substr(md5('reference ' || n), 1, 12),
    pg_temp.pick(p, d, 13), pg_temp.pick(p, d, 14), CASE WHEN get_byte(d, 15) > 100 THEN pg_temp.pick(p, e, 0) END,
    pg_temp.pick(p, e, 1), 'pulse', 50 + get_byte(e, 2) % 60, pg_temp.pick(p, e, 3), pg_temp.pick(p, e, 4))
FROM generate_series(1, ${3 * patients}) n,
  LATERAL (SELECT pg_temp.digest('encounter ' || n) AS d, pg_temp.digest('notes ' || n) AS e, ${list(phrases)} AS p) x;
`;
}

function results(patients: number): string {
  return sql`
INSERT INTO public.lab_results (patient_id, sample, test, result, unit, is_abnormal, taken_at)
SELECT 1 + n % ${patients}, md5('sample ' || n / 2)::uuid,
  pg_temp.pick(${words('HbA1c LDL HDL creatinine TSH ferritin CRP sodium potassium ALT')}, d, 0),
  CASE get_byte(d, 1) WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN 'Infinity' ELSE pg_temp.number(d, 2, 30000) / 97.0 END,
  pg_temp.pick(${list(['%', 'mg/dl', 'mmol/l', 'µg/l', 'U/l'])}, d, 4), get_byte(d, 5) < 30,
  timestamptz '2023-01-02 07:00:00+00' + pg_temp.number(d, 6, 700) * interval '1 day'
    + pg_temp.number(d, 8, 65536) * interval '137 milliseconds'
FROM generate_series(1, ${8 * patients}) n, LATERAL (SELECT pg_temp.digest('result ' || n) AS d) x;
`;
}

function papers(patients: number): string {
  return sql`
INSERT INTO public.documents (patient_id, file_name, media_type, content, sha256)
SELECT 1 + n * 5 % ${patients}, 'scan-' || n || '.jpg', 'image/jpeg', content, sha256(content)
FROM (
  SELECT n, '\xffd8ffe000104a464946000a5c2e0a'::bytea || coalesce(string_agg(sha256(convert_to(n || ' ' || m, 'UTF8')), '' ORDER BY m), '') AS content
  FROM generate_series(1, ${Math.max(1, Math.floor(patients / 5))}) n, generate_series(1, n * 37 % 240) m
  GROUP BY n
) x ORDER BY n;

INSERT INTO billing.invoices (number, patient_id, issued, net, paid_at, lines)
SELECT 'R' || lpad(n::text, 9, '0'), n, date '2023-01-02' + pg_temp.number(d, 0, 700), pg_temp.number(d, 2, 50000) / 100.0,
  CASE WHEN get_byte(d, 4) > 50 THEN timestamptz '2025-01-01 00:00:00+00' + pg_temp.number(d, 5, 60000) * interval '1 minute' END,
  jsonb_build_array(jsonb_build_object('code', 'GOÄ ' || get_byte(d, 7), 'factor', get_byte(d, 8) % 35 / 10.0),
    jsonb_build_object('code', 'GOÄ ' || get_byte(d, 9), 'text', 'Beratung "kurz"'))
FROM generate_series(1, ${patients}) n, LATERAL (SELECT pg_temp.digest('invoice ' || n) AS d) x;

INSERT INTO public.audit_log
SELECT timestamptz '2022-12-01 00:00:00+00' + pg_temp.number(d, 0, 800) * interval '1 day' + n % 86400 * interval '1 second',
  'user' || get_byte(d, 2) % 12, pg_temp.pick(${words('read write print export')}, d, 3), 1 + n % ${patients},
  'from 10.0.' || get_byte(d, 4) || '.' || get_byte(d, 5)
FROM generate_series(1, ${2 * patients}) n, LATERAL (SELECT pg_temp.digest('audit ' || n) AS d) x;
`;
}

const oddities = sql`
INSERT INTO public."Quoted ""Table"" with späces" ("select", "naïve ""column""; -- \.")
VALUES ('tab	and
line', '\.'), ('', NULL), (E'\\N', E'\b\f\x0b\r\n'), ('''', '"'), (repeat('ü', 3000), '$$ $body$ ; --');
INSERT INTO public.heartbeats DEFAULT VALUES;
INSERT INTO public.heartbeats DEFAULT VALUES;
INSERT INTO public.heartbeats DEFAULT VALUES;
DO $$
BEGIN
  PERFORM lo_from_bytea(910001, '\x00ff0a5c2e0a');
  PERFORM lo_from_bytea(910002, convert_to(E'BEGIN;\nCOMMIT;\n', 'UTF8'));
  -- Longer than the 2 KiB pieces that the server keeps them in.
  PERFORM lo_from_bytea(910003, decode(repeat(md5('scan'), 313), 'hex'));
END
$$;
`;

/** An array of the words in it. */
function words(text: string): string {
  return list(text.split(' '));
}

function list(items: readonly string[]): string {
  return `ARRAY[${items.map(quote).join(', ')}]`;
}

/** E'…', so that it says the same whatever standard_conforming_strings is. */
function quote(text: string): string {
  const escaped = text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n').replaceAll('\r', '\\r');
  return `E'${escaped.replaceAll('\t', '\\t')}'`;
}
