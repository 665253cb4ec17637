"""Words before a bracket that leave nothing in a session: built-in functions and keywords. Made by scripts/mysql_functions; see there."""

from typing import Final


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


EVERYWHERE: Final = _words(
    """
    abs accessible acos add adddate addtime aes_decrypt aes_encrypt all alter analyze and any as asc ascii asensitive asin atan atan2
    avg backup before begin benchmark between bigint bin binary binlog bit bit_and bit_count bit_length bit_or bit_xor blob bool
    boolean both by byte cache call cascade case cast ceil ceiling change char char_length character character_length charset check
    checksum close coalesce code coercibility collate collation column comment commit compress compressed concat concat_ws condition
    constraint contains continue conv convert convert_tz cos cot count crc32 create cross curdate current_date current_time
    current_timestamp current_user cursor curtime database databases date date_add date_format date_sub datediff datetime day day_hour
    day_microsecond day_minute day_second dayname dayofmonth dayofweek dayofyear deallocate dec decimal declare default degrees delayed
    delete desc describe deterministic distinct distinctrow div do double drop dual each else elseif elt enclosed end enum escaped
    exclude execute exists exit exp explain export_set extract extractvalue false fetch field find_in_set fixed float float4 float8
    floor flush following follows for force foreign format from from_days from_unixtime fulltext get get_format global grant greatest
    group group_concat handler having help hex high_priority host hour hour_microsecond hour_minute hour_second if ifnull ignore in
    index inet_aton inet_ntoa infile inner inout insensitive insert install instr int int1 int2 int3 int4 int8 integer interval into is
    is_free_lock is_used_lock isnull iterate join json key keys kill language last_day lcase leading least leave left length like limit
    linear lines ln load load_file local localtime localtimestamp locate lock log log10 log2 long longblob longtext loop low_priority
    lower lpad ltrim make_set makedate maketime master_pos_wait match max maxvalue mbrcontains mbrdisjoint mbrintersects mbroverlaps
    mbrtouches mbrwithin medium mediumblob mediumint mediumtext microsecond mid middleint min minute minute_microsecond minute_second
    mod modifies month monthname name_const names national natural nchar no no_write_to_binlog not now null nullif number numeric
    nvarchar oct octet_length offset on open optimize option optionally options or ord order others out outer outfile owner parser
    partition password period_add period_diff pi port position pow power precedes preceding precision prepare primary procedure purge
    quarter quote radians rand range read read_write reads real references regexp release remove rename repair repeat replace replica
    replicas require reset resignal restore restrict return returning reverse revoke right rlike role rollback round rpad rtrim
    savepoint schema schemas sec_to_time second second_microsecond security select sensitive separator serial server session
    session_user set show shutdown sign signal signed sin slave sleep smallint socket some soname soundex sounds space spatial specific
    sql sql_big_result sql_buffer_result sql_calc_found_rows sql_no_cache sql_small_result sql_tsi_day sql_tsi_hour sql_tsi_minute
    sql_tsi_month sql_tsi_second sql_tsi_year sqlexception sqlstate sqlwarning sqrt srid ssl start starting stats_auto_recalc
    stats_persistent stats_sample_pages std stddev stddev_pop stddev_samp stop stored str_to_date straight_join strcmp subdate substr
    substring substring_index subtime sum sysdate system_user table tan terminated text then ties time time_format time_to_sec timediff
    timestamp timestampadd timestampdiff tinyblob tinyint tinytext to to_days trailing trigger trim true truncate ucase unbounded
    uncompress uncompressed_length undo unhex unicode uninstall union unique unix_timestamp unlock unsigned update updatexml upgrade
    upper usage use user using utc_date utc_time utc_timestamp uuid value values var_pop var_samp varbinary varchar varcharacter
    variance varying version week weekday weekofyear when where while with wrapper write xa xor year year_month yearweek zerofill
    """
)
"""In each supported version of MySQL and MariaDB."""

IN_MYSQL_8: Final = _words(
    """
    any_value auto_increment bin_to_uuid can_access_column can_access_database can_access_table can_access_user can_access_view clone
    cube cume_dist current_role dense_rank empty except external first_value format_bytes format_pico_time from_base64 function
    generated geomcollection geometrycollection get_dd_column_privileges get_dd_create_options get_dd_index_sub_part_length grouping
    groups gtid_subset gtid_subtract icu_version inet6_aton inet6_ntoa internal_auto_increment internal_avg_row_length
    internal_check_time internal_checksum internal_data_free internal_data_length internal_dd_char_length internal_get_comment_or_error
    internal_get_enabled_role_json internal_get_hostname internal_get_username internal_get_view_warning_or_error
    internal_index_column_cardinality internal_index_length internal_is_enabled_role internal_is_mandatory_role internal_keys_disabled
    internal_max_data_length internal_table_rows internal_update_time intersect io_after_gtids io_before_gtids is_ipv4 is_ipv4_compat
    is_ipv4_mapped is_ipv6 is_uuid is_visible_dd_object json_array json_array_append json_array_insert json_arrayagg json_contains
    json_contains_path json_depth json_extract json_insert json_keys json_length json_merge json_merge_patch json_merge_preserve
    json_object json_objectagg json_overlaps json_pretty json_quote json_remove json_replace json_schema_valid
    json_schema_validation_report json_search json_set json_storage_free json_storage_size json_table json_type json_unquote json_valid
    json_value lag last_value lateral lead linestring mbrcoveredby mbrcovers mbrequals merge multilinestring multipoint multipolygon
    nth_value ntile of optimizer_costs over percent_rank point polygon ps_thread_id random_bytes rank recursive regexp_instr
    regexp_like regexp_replace regexp_substr restart roles_graphml row row_number rows sha2 source_pos_wait st_area st_asbinary
    st_asgeojson st_astext st_buffer st_buffer_strategy st_centroid st_collect st_contains st_convexhull st_crosses st_difference
    st_dimension st_disjoint st_distance st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring st_frechetdistance
    st_geohash st_geomcollfromtext st_geomcollfromwkb st_geometryn st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb
    st_hausdorffdistance st_interiorringn st_intersection st_intersects st_isclosed st_isempty st_issimple st_isvalid st_latfromgeohash
    st_latitude st_length st_linefromtext st_linefromwkb st_lineinterpolatepoint st_lineinterpolatepoints st_longfromgeohash
    st_longitude st_makeenvelope st_mlinefromtext st_mlinefromwkb st_mpointfromtext st_mpointfromwkb st_mpolyfromtext st_mpolyfromwkb
    st_numgeometries st_numinteriorrings st_numpoints st_overlaps st_pointatdistance st_pointfromgeohash st_pointfromtext
    st_pointfromwkb st_pointn st_polyfromtext st_polyfromwkb st_simplify st_srid st_startpoint st_swapxy st_symdifference st_touches
    st_transform st_union st_validate st_within st_x st_y statement_digest statement_digest_text system to_base64 to_seconds uuid_short
    uuid_to_bin validate_password_strength virtual wait_for_executed_gtid_set weight_string window
    """
)
"""And in MySQL since 8.0.31."""

IN_MYSQL_UNTIL_9_5: Final = _words(
    """
    md5 sha sha1
    """
)
"""Then they became loadable functions."""

IN_MARIADB_10_11: Final = _words(
    """
    add_months area asbinary astext aswkb aswkt binlog_gtid_pos boundary buffer centroid checkpoint chr clob column_add column_check
    column_create column_delete column_exists column_get column_json column_list concat_operator_oracle convexhull crc32c crosses
    cume_dist current_role decode decode_histogram decode_oracle delete_domain_id dense_rank des_decrypt des_encrypt dimension disjoint
    do_domain_ids encode encrypt endpoint envelope equals examined except exteriorring first_value from_base64 function
    geomcollfromtext geomcollfromwkb geometrycollectionfromtext geometrycollectionfromwkb geometryfromtext geometryfromwkb geometryn
    geometrytype geomfromtext geomfromwkb glength id ignore_domain_ids ignored inet6_aton inet6_ntoa interiorringn intersect intersects
    is_ipv4 is_ipv4_compat is_ipv4_mapped is_ipv6 isclosed isempty isring issimple json_array json_array_append json_array_insert
    json_arrayagg json_compact json_contains json_contains_path json_depth json_detailed json_equals json_exists json_extract
    json_insert json_keys json_length json_loose json_merge json_merge_patch json_merge_preserve json_normalize json_object
    json_objectagg json_overlaps json_pretty json_query json_quote json_remove json_replace json_search json_set json_type json_unquote
    json_valid json_value lag last_value lead lengthb linefromtext linefromwkb linestringfromtext linestringfromwkb lpad_oracle
    ltrim_oracle master_demote_to_replica master_demote_to_slave master_ssl_verify_server_cert mbrequal md5 median mlinefromtext
    mlinefromwkb mpointfromtext mpointfromwkb mpolyfromtext mpolyfromwkb multilinestringfromtext multilinestringfromwkb
    multipointfromtext multipointfromwkb multipolygonfromtext multipolygonfromwkb natural_sort_key nth_value ntile numgeometries
    numinteriorrings numpoints nvl nvl2 old_password over overlaps page_checksum parse_vcol_expr percent_rank percentile_cont
    percentile_disc period pointfromtext pointfromwkb pointn pointonsurface polyfromtext polyfromwkb polygonfromtext polygonfromwkb
    portion random_bytes rank raw recursive ref_system_id regexp_instr regexp_replace regexp_substr replace_oracle row row_number
    rownum rows rpad_oracle rtrim_oracle sformat sha sha1 sha2 slaves sql_cache st_srid st_x st_y startpoint substr_oracle sys_guid
    to_base64 to_char to_seconds touches trim_oracle uuid_short varchar2 weight_string window within wsrep_last_seen_gtid
    wsrep_last_written_gtid x y
    """
)
"""And in MariaDB since 10.11."""

UNQUOTED: Final = _words(
    """
    absent accessible account action active add adddate admin after against aggregate algorithm all allow_missing_files alter always
    analyze and any array as asc ascii asensitive assign_gtids_to_anonymous_transactions at attribute authentication auto
    auto_increment auto_refresh auto_refresh_source autoextend_size avg avg_row_length backup before begin bernoulli between bigint
    binary binlog bit bit_and bit_or bit_xor blob block bool boolean both btree buckets bulk by byte cache call cascade cascaded case
    cast catalog_name chain challenge_response change changed channel char character charset check checkpoint checksum cipher
    class_origin client clob clone close coalesce code collate collation column column_add column_create column_delete column_format
    column_get column_name columns comment commit committed compact completion component compressed compression concurrent condition
    connection consistent constraint constraint_catalog constraint_name constraint_schema contains context continue convert count cpu
    create cross cube cume_dist curdate current current_date current_role current_time current_timestamp current_user cursor
    cursor_name curtime data database databases datafile date date_add date_sub datetime day day_hour day_microsecond day_minute
    day_second deallocate dec decimal declare default default_auth definer definition delay_key_write delayed delete delete_domain_id
    dense_rank desc describe description deterministic diagnostics directory disable discard disk distinct distinctrow div do
    do_domain_ids double drop dual duality dumpfile duplicate dynamic each else elseif empty enable enclosed encryption end ends
    enforced engine engine_attribute engines enum error errors escape escaped event events every examined except exchange exclude
    execute exists exit expansion expire explain export extended extent_size external external_format extract factor
    failed_login_attempts false fast faults fetch fields file file_block_size file_format file_name file_pattern file_prefix files
    filter finish first first_value fixed float float4 float8 flush following follows for force foreign format found from full fulltext
    function general generate generated geomcollection geometry geometrycollection get get_format get_source_public_key global grant
    grants group group_concat group_replication grouping groups gtid_only gtids guided handler hash having header help high_priority
    histogram history host hosts hour hour_microsecond hour_minute hour_second id identified if ignore ignore_domain_ids
    ignore_server_ids ignored import in inactive index indexes infile initial initial_size initiate inner inout insensitive insert
    insert_method install instance int int1 int2 int3 int4 int8 integer intersect interval into invisible invoker io io_after_gtids
    io_before_gtids io_thread ipc is isolation issuer iterate join json json_arrayagg json_objectagg json_table json_value key
    key_block_size keyring keys kill lag language last last_value lateral lead leading leave leaves left less level library like limit
    linear lines linestring list load local localtime localtimestamp lock locked locks logfile logs long longblob longtext loop
    low_priority manual masking master master_demote_to_replica master_demote_to_slave master_ssl_verify_server_cert match materialized
    max max_connections_per_hour max_queries_per_hour max_rows max_size max_updates_per_hour max_user_connections maxvalue median
    medium mediumblob mediumint mediumtext member memory merge message_text microsecond mid middleint migrate min min_rows minute
    minute_microsecond minute_second mod mode modifies modify month multilinestring multipoint multipolygon mutex mysql_errno name
    names national natural nchar ndb ndbcluster nested network_namespace never new next no no_wait no_write_to_binlog nodegroup none
    not now nowait nth_value ntile null nulls number numeric nvarchar of off offset oj old on one only open optimize optimizer_costs
    option optional optionally options or order ordinality organization others out outer outfile over owner pack_keys page
    page_checksum parallel parameters parse_tree parse_vcol_expr parser partial partition partitioning partitions password
    password_lock_time path percent_rank percentile_cont percentile_disc period persist persist_only phase plugin plugin_dir plugins
    point policy polygon port portion position precedes preceding precision prepare preserve prev primary privilege_checks_user
    privileges procedure process processlist profile profiles proxy purge qualify quarter query quick random range rank raw read
    read_only read_write reads real rebuild recover recursive redo_buffer_size redundant ref_system_id reference references regexp
    registration relational relay relay_log_file relay_log_pos relay_thread relaylog release reload remove rename reorganize repair
    repeat repeatable replace replica replicas replicate_do_db replicate_do_table replicate_ignore_db replicate_ignore_table
    replicate_rewrite_db replicate_wild_do_table replicate_wild_ignore_table replication require require_row_format
    require_table_primary_key_check reset resignal resource respect restart restore restrict resume retain return returned_sqlstate
    returning returns reuse revoke right rlike role rollback rollup rotate routine row row_format row_number rownum rows rtree s3
    savepoint schedule schema schema_name schemas second second_microsecond secondary secondary_engine secondary_engine_attribute
    secondary_load secondary_unload security select sensitive separator serial serializable server session session_user set sets share
    show shutdown signal signed simple skip slave slaves slow smallint snapshot socket some soname sounds source source_auto_position
    source_bind source_compression_algorithms source_connect_retry source_connection_auto_failover source_delay source_heartbeat_period
    source_host source_log_file source_log_pos source_password source_port source_public_key_path source_retry_count source_ssl
    source_ssl_ca source_ssl_capath source_ssl_cert source_ssl_cipher source_ssl_crl source_ssl_crlpath source_ssl_key
    source_ssl_verify_server_cert source_tls_ciphersuites source_tls_version source_user source_zstd_compression_level spatial specific
    sql sql_after_gtids sql_after_mts_gaps sql_before_gtids sql_big_result sql_buffer_result sql_cache sql_calc_found_rows sql_no_cache
    sql_small_result sql_thread sql_tsi_day sql_tsi_hour sql_tsi_minute sql_tsi_month sql_tsi_quarter sql_tsi_second sql_tsi_week
    sql_tsi_year sqlexception sqlstate sqlwarning srid ssl st_collect stacked start starting starts stats_auto_recalc stats_persistent
    stats_sample_pages status std stddev stddev_pop stddev_samp stop storage stored straight_join stream strict_load string
    subclass_origin subdate subject subpartition subpartitions substr substring sum super suspend swaps switches sysdate system
    system_user table table_checksum table_name tables tablesample tablespace temporary temptable terminated text than then
    thread_priority ties time timestamp timestampadd timestampdiff tinyblob tinyint tinytext tls to trailing transaction trigger
    triggers trim trim_oracle true truncate type types unbounded uncommitted undefined undo undo_buffer_size undofile unicode uninstall
    union unique unknown unlock unregister unsigned until update upgrade uri url usage use use_frm user user_resources using utc_date
    utc_time utc_timestamp validate validation value values var_pop var_samp varbinary varchar varchar2 varcharacter variables variance
    varying vcpu vector verify_key_constraints view virtual visible wait warnings week weight_string when where while window with
    without work wrapper write x509 xa xid xml xor year year_month zerofill zone
    """
)
"""Known to the grammar: in quotes such a name is that of a user's function."""

UNSPACED: Final = _words(
    """
    adddate bit_and bit_or bit_xor cast count cume_dist curdate curtime date_add date_sub dense_rank extract first_value group_concat
    json_arrayagg json_objectagg lag lead max median mid min now nth_value ntile percent_rank percentile_cont percentile_disc position
    rank session_user st_collect std stddev stddev_pop stddev_samp subdate substr substring sum sysdate system_user trim trim_oracle
    var_pop var_samp variance
    """
)
"""A space before the bracket makes it a user's function, unless sql_mode has IGNORE_SPACE."""
